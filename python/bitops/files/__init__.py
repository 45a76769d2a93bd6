"""Files: read only if they are regular ones, written whole or not at all, and made printable.

`reading` opens files, `writing` replaces and extends them, `tensors` are files of arrays with a
description, `arrays` and `hdf5` read those of other programs, `examples` reads pictures and arrays
for a model as its `notes` say, and `text` shows words of strangers on a terminal.
"""
