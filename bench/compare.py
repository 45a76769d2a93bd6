"""This tree against another commit, case by case, failing below 0.98 of its speed.

    python bench/compare.py main [--only conv2d] [--cpu 1] [--keep DIR] [--json compare.json]

The cases are those of cases.py: products, convolutions, packing, a search, packed networks and
training steps. The other commit and the tracked files of this tree as they are (changes included)
are built and installed into a temporary folder. With --keep the builds stay in a folder of yours,
and a later run builds only a tree that is not there. Both trees run the cases.py of this one.

Subprocesses of the two alternate, pinned to one CPU with one thread; each reports its median. Of
samples during which another process took the CPU, the CPU time counts. The best of a tree counts,
so that a busy moment does not. A case is slower only if the median of a tree's medians says so too:
where time depends on the pages of memory that a process gets, the best is chance. A case below the
limit is measured again, up to --retries times, and all samples count.

Every result is compared with NumPy's, and that of a packed network with its training network's.
The two trees must also give equal results, bit for bit, where these are integers or bits, and equal
scores of packed networks. Gradients and losses of the first training steps must agree to 1 %. Where
they or products of real numbers are not equal bit for bit, the row says "rounded otherwise".

The CPU time of an import is taken in fresh processes that have loaded NumPy, and has no limit. The
exit status is 1 if a case is slower or a result is wrong. A whole run takes five to ten minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "bench" / "cases.py"
IMPORTS = ("import bitops", "import bitops.layers")
IMPORT_PROCESSES = 9
FIGURES_TOLERANCE = 1e-2

TIME_IMPORT = """
import sys, time
import numpy
start = time.process_time()
exec(sys.argv[1])
print(time.process_time() - start)
"""


class Failed(RuntimeError):
    """A command that failed, with what it printed."""


def run(*command: str | Path, **options: Any) -> str:
    """Run a command; its output, or an error that shows what went wrong."""
    words = [str(word) for word in command]
    result = subprocess.run(words, capture_output=True, text=True, **options)
    if result.returncode:
        raise Failed(f"{' '.join(words)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def tracked_changes() -> str:
    """A commit-like object of the tree as it is; HEAD if nothing is changed."""
    return run("git", "stash", "create", cwd=ROOT).strip() or "HEAD"


def install(revision: str, builds: Path) -> Path:
    """Build a revision unless its files have been built; the folder to import bitops from."""
    tree = run("git", "rev-parse", "--verify", f"{revision}^{{tree}}", cwd=ROOT).strip()
    target = builds.resolve() / tree
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=target.parent) as folder:
        source, archive, installed = (Path(folder, i) for i in ("source", "tar", "installed"))
        source.mkdir()
        run("git", "archive", "--output", archive, tree, cwd=ROOT)
        run("tar", "-xf", archive, "-C", source)
        options = ("--no-deps", "--no-build-isolation", "--quiet", "--target", installed)
        run(sys.executable, "-m", "pip", "install", *options, source)
        shutil.move(installed, target)
    return target


class Tree:
    """An installed revision, whose programs run on one CPU with one thread."""

    def __init__(self, package: Path, cpu: int):
        self.package = package
        self.cpu = cpu

    def python(self, *arguments: str | Path) -> str:
        """Run a program with this tree's bitops; returns its output."""
        paths = {"PYTHONPATH": str(self.package)}
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        return run(
            sys.executable,
            *arguments,
            cwd=self.package,
            env={**os.environ, **paths, **threads},
            preexec_fn=self._pin,
        )

    def _pin(self) -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {self.cpu})

    def measure(self, case: str) -> dict[str, Any]:
        """What cases.py says of a case in one process."""
        found = json.loads(self.python(CASES, case))
        if not Path(found["package"]).is_relative_to(self.package):
            raise Failed(f"{case} ran with {found['package']} instead of {self.package}")
        return found

    def seconds_of_import(self, statement: str) -> float:
        return float(self.python("-c", TIME_IMPORT, statement))


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Say how the results of both trees differ; nothing if they do not. Wrong ones raise."""
    if old["digest"] == new["digest"] and old["figures"] == new["figures"]:
        return ""
    if old["exact"] or new["exact"]:
        raise Failed("the two trees give different results")
    for figure, other in zip(old["figures"], new["figures"], strict=True):
        if not math.isclose(figure, other, rel_tol=FIGURES_TOLERANCE):
            raise Failed(f"the two trees give {figure} and {other}")
    return "rounded otherwise"


def summarize(case: str, samples: dict[str, list[float]]) -> dict[str, Any]:
    """How many times faster the new tree is: best over best, median over median, the better one."""
    old, new = samples["old"], samples["new"]
    best, middle = min(old) / min(new), statistics.median(old) / statistics.median(new)
    ratios = {"best": best, "median": middle, "speed": max(best, middle)}
    return {"case": case, "seconds": samples, **ratios, "note": "", "fails": False}


def compare(old: Tree, new: Tree, case: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a case in turns, again while it is too slow."""
    samples: dict[str, list[float]] = {"old": [], "new": []}
    trees = [("old", old), ("new", new)]
    row: dict[str, Any] = {"speed": 0.0}
    tries = 0
    while tries <= options.retries and row["speed"] < options.limit:
        tries += 1
        for _ in range(options.rounds):
            found = {side: tree.measure(case) for side, tree in trees}
            trees.reverse()  # neither is always the one that comes second
            note = differences(found["old"], found["new"])
            for side, values in samples.items():
                values.append(found[side]["seconds"])
        row = summarize(case, samples)
    notes = [note, f"{tries} tries" if tries > 1 else ""]
    return {**row, "note": ", ".join(filter(None, notes)), "fails": row["speed"] < options.limit}


def compare_import(old: Tree, new: Tree, statement: str) -> dict[str, Any]:
    """Time an import in fresh processes, in turns."""
    samples: dict[str, list[float]] = {"old": [], "new": []}
    for _ in range(IMPORT_PROCESSES):
        samples["old"].append(old.seconds_of_import(statement))
        samples["new"].append(new.seconds_of_import(statement))
    return {**summarize(statement, samples), "note": "no limit"}


def attempt(old: Tree, new: Tree, case: str, options: argparse.Namespace) -> dict[str, Any]:
    """Compare a case or an import; a row without speed says what went wrong."""
    try:
        if case in IMPORTS:
            return compare_import(old, new, case)
        return compare(old, new, case, options)
    except Failed as error:
        return {"case": case, "speed": 0.0, "note": str(error).strip(), "fails": True}


def print_row(row: dict[str, Any]) -> None:
    cells, verdict = f"{'':>41}", "FAILED "
    if row["speed"]:
        old, new = (1e6 * statistics.median(row["seconds"][side]) for side in ("old", "new"))
        cells = f"{old:>11.2f} {new:>11.2f} {row['best']:>8.3f} {row['median']:>8.3f}"
        verdict = "SLOWER " if row["fails"] else ""
    note = row["note"].splitlines()[-1] if row["note"] else ""
    print(f"{row['case']:<32} {cells}  {verdict}{note}".rstrip(), flush=True)


def print_report(report: list[dict[str, Any]]) -> None:
    """Print what failed or is slowest first, and the whole messages of what failed."""
    print("\nworst first")
    for row in sorted(report, key=lambda row: row["speed"]):
        print_row(row)
    for row in report:
        if not row["speed"]:
            print(f"\n{row['case']}: {row['note']}")


def choose(new: Tree, only: list[str]) -> list[str]:
    """The names of all cases, or of those that contain one of some words."""
    names = [*json.loads(new.python(CASES, "--list")), *IMPORTS]
    chosen = [name for name in names if not only or any(word in name for word in only)]
    if not chosen:
        raise Failed(f"--only {' '.join(only)}: no case has such a name: {', '.join(names)}")
    return chosen


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="commit to compare with")
    parser.add_argument("--only", nargs="+", default=[], metavar="SUBSTRING", help="choose cases")
    parser.add_argument("--limit", type=float, default=0.98, help="least speed, over the commit's")
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5, help="subprocesses of each tree")
    parser.add_argument("--retries", type=int, default=3, help="for a case below the limit")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where builds are kept and found")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser.parse_args()


def compare_all(options: argparse.Namespace, builds: Path) -> list[dict[str, Any]]:
    """Build both trees and compare the chosen cases."""
    builds.mkdir(parents=True, exist_ok=True)
    old = Tree(install(options.revision, builds), options.cpu)
    new = Tree(install(tracked_changes(), builds), options.cpu)
    print(f"speed of this tree over {options.revision}, one thread, CPU {options.cpu}:")
    print("median times, ratio of the best times, ratio of the medians")
    print(f"{'':<32} {'old, us':>11} {'new, us':>11} {'best':>8} {'median':>8}")
    report = []
    for case in choose(new, options.only):
        report.append(attempt(old, new, case, options))
        print_row(report[-1])
    return report


def main() -> None:
    options = arguments()
    try:
        with tempfile.TemporaryDirectory(prefix="bitops-compare-") as folder:
            report = compare_all(options, options.keep or Path(folder))
    except Failed as error:
        sys.exit(f"compare: {error}")
    print_report(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2))
    failed = [row["case"] for row in report if row["fails"]]
    if failed:
        sys.exit(f"compare: slower than {options.limit}x, or wrong: {', '.join(failed)}")


if __name__ == "__main__":
    main()
