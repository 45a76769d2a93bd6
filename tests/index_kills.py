"""Writers of an index that are killed at random moments, while others read it.

    python tests/index_kills.py [--kills 100] [--seed N]

Children of this process add and remove rows of an index in a folder, tell each finished change
through a pipe, and get SIGKILL. After each kill the index must open and hold what it held after the
last change that was told, or after the one that was under way. Two more children read meanwhile:
each state that they see must be one of a moment, and later ones come later. Prints counts; ends
with status 1 at the first difference. Needs os.fork.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

import bitops as bo
from bitops.search import BitIndex

K = 130
MOST = 60  # rows of a change


def row_of(ids: np.ndarray) -> bo.BitArray:
    """Rows that tell their id."""
    words = np.zeros((len(ids), 3), np.uint64)
    words[:, 0] = words[:, 1] = ids
    words[:, 2] = 1
    return bo.BitArray.from_words(words, (len(ids), K))


def change(step: int) -> tuple[str, np.ndarray]:
    """The change that leads from state `step` to the next: the same in every process."""
    rng = np.random.default_rng(step)
    if step % 3 < 2:
        start = step * MOST
        return "add", rng.permutation(np.arange(start, start + MOST))[: rng.integers(1, MOST)]
    earlier = change(step - rng.integers(1, 3))[1]
    return "remove", earlier[: len(earlier) // 2 + 1]


def held(step: int) -> np.ndarray:
    """The ids of a state."""
    ids: set[int] = set()
    for earlier in range(step):
        kind, changed = change(earlier)
        ids = ids | set(changed.tolist()) if kind == "add" else ids - set(changed.tolist())
    return np.array(sorted(ids), np.int64)


def write(folder: Path, step: int, pipe: int) -> None:
    """Change the index for ever."""
    index = BitIndex.load(folder)
    while True:
        kind, ids = change(step)
        if kind == "add":
            index.add(row_of(ids), ids)
        else:
            index.remove(ids)
        step += 1
        os.write(pipe, step.to_bytes(8, "little"))


def read(folder: Path) -> None:
    """Open states for ever; each must be whole, and its rows those of its ids."""
    index, last = BitIndex.load(folder), 0
    while True:
        index.refresh()
        check_rows(index)
        assert index.next_id >= last, "an earlier state comes back"
        last = index.next_id
        index = index if random.random() < 0.7 else BitIndex.load(folder)


def check_rows(index: BitIndex) -> None:
    """Rows tell their ids, in each of two ways; a search finds them."""
    state_ids = index.ids
    try:
        rows = index.rows(state_ids)
    except ValueError:  # `ids` and `rows` are two looks at an index of one process
        raise AssertionError("ids without rows") from None
    assert rows == row_of(state_ids), "rows of other ids"
    some = state_ids[:: max(len(state_ids) // 5, 1)]
    distances, found = index.search(row_of(some), 1)
    assert not distances.any() and np.array_equal(found[:, 0], some), "rows are not found"


def start(work, *arguments) -> int:
    """Fork a child, and return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        work(*arguments)
    except BaseException as error:
        print(f"child: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(1)


def last_told(pipe: int, step: int) -> int:
    """The last change that a child has told before it was killed; the pipe's other end is shut."""
    with os.fdopen(pipe, "rb") as told:
        content = told.read()
    return int.from_bytes(content[-8:], "little") if content else step


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "a child fails by itself"


def stress(kills: int, seed: int) -> Counter:
    """Kill writers until there were enough kills."""
    rng, counts, step = random.Random(seed), Counter(), 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "index"
        BitIndex(np.zeros((0, K), bool)).save(folder)
        readers = [start(read, folder) for _ in range(2)]
        for _ in range(kills):
            source, sink = os.pipe()
            child = start(write, folder, step, sink)
            os.close(sink)
            time.sleep(0.002 + 0.3 * rng.random() ** 2)  # soon, or after some changes
            kill(child)
            told = last_told(source, step)
            index = BitIndex.load(folder)
            check_rows(index)
            under_way = [now for now in (told, told + 1) if np.array_equal(index.ids, held(now))]
            assert under_way, f"the state after change {told} or {told + 1} is not there"
            counts["kills"] += 1
            counts["changes"] += told - step
            counts["done but not told"] += under_way == [told + 1]
            step = under_way[-1]
            extra = set(os.listdir(folder)) - named_files(index)
            counts["left files"] += bool(extra)
        for child in readers:
            kill(child)
        index = BitIndex.load(folder)
        index.add(row_of(np.array([10**9])), [10**9])
        assert not set(os.listdir(folder)) - named_files(index), "files are left behind"
    return counts


def named_files(index: BitIndex) -> set[str]:
    """The files that an index needs."""
    names = {"index.json", "lock"}
    for segment in index._state.segments:
        names.add(f"{segment.name}.rows.npy")
        if not isinstance(segment.ids, range):
            names.add(f"{segment.name}.ids.npy")
        if segment.removed_name:
            names.add(f"{segment.removed_name}.removed.npy")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    bo.set_num_threads(1)  # forked children may not use threads of their parent
    began = time.perf_counter()
    counts = stress(args.kills, args.seed)
    print(
        f"{counts['kills']} kills during {counts['changes']} changes in "
        f"{time.perf_counter() - began:.0f} s; {counts['left files']} left files behind, "
        f"{counts['done but not told']} came between a change and its return; every index opens "
        "and holds the state of a moment, two readers saw only such states"
    )


if __name__ == "__main__":
    main()
