"""What a careful forger changes in files, model files or checkpoints: the digest fits."""

import json

import safetensors
import safetensors.numpy

from bitops.files.tensors import digest


def read(path):
    """Description and tensors of a file."""
    with safetensors.safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["bitops"])
        return description, {name: file.get_tensor(name) for name in file.keys()}


def write(path, description, tensors):
    """A file of them, whose digest is made to fit."""
    description["sha256"] = digest(description, tensors)
    write_text(path, json.dumps(description), tensors)


def write_text(path, text, tensors):
    """A file whose description is any text."""
    path.write_bytes(safetensors.numpy.save(tensors, {"bitops": text}))


def rewrite(path, *, tensors=None, document=None, **entries):
    """Change parts of a file; a tensor given as None is taken out of it."""
    description, arrays = read(path)
    arrays.update(tensors or {})
    arrays = {name: array for name, array in arrays.items() if array is not None}
    description.update(entries)
    if document is not None:
        write_text(path, document, arrays)
    elif "sha256" in entries:
        write_text(path, json.dumps(description), arrays)
    else:
        write(path, description, arrays)


def graph_of(path):
    """The descriptions of the layers in a model file."""
    return read(path)[0]["graph"]
