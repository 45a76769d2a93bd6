"""Products, searches, convolutions and packing over a grid of sizes, against three rivals.

    python bench/sweep.py [--only 'product 1x*'] [--cpu 1] [--json sweep.json] [--plot sweep.png]

The points are those of grid.py: gemm and hamming on plain rows and on prepacked weights,
hamming_topk, pack, and conv2d of small images. "numpy" is float32 BLAS for products, a comparison
and packbits for pack, and patches times filters in float32 BLAS for conv2d; faiss is
`faiss.hammings` and `IndexBinaryFlat`; numkong its Hamming matrix, weights packed beforehand. A
rival that is not installed has dashes.

One thread. All calls of a point take turns in one process, every result is checked, and times are
the best of the rounds. A ratio is the rival's time over ours. The table begins with the worst
ratios to faiss and numkong, or to NumPy where neither has the function, after 1 us of fixed cost
has been taken from our time. A point is behind if such a ratio is below 0.95, and
is then measured twice.

--from FILE prints and draws what an earlier --json kept, without measuring.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import common
from bitops.benchmark import interleave, threads
from bitops.cli.figures import new_figure, save_figure
from grid import RIVALS, Calls, Case, all_cases
from peers import limit_peers, load_peers

BLOCK_SECONDS = 5e-4
FIXED_COST = 1e-6
BEHIND = 0.95

Row = dict[str, Any]


def best_times(calls: Calls, seconds: float) -> dict[str, float]:
    """The best time of each call, all in turns and checked."""
    times = interleave(
        calls.ours | calls.rivals, seconds=seconds, check=calls.check, block_seconds=BLOCK_SECONDS
    )
    return {name: timing.best for name, timing in times.items()}


def make_rows(case: Case, calls: Calls, times: dict[str, float]) -> list[Row]:
    """One row for each call of ours: its time, and those of the rivals."""
    rivals = {name: times[name] for name in calls.rivals}
    return [
        {
            "call": name,
            "size": case.size,
            "work": case.work,
            "seconds": times[name],
            "rivals": rivals,
            "ratio": {rival: seconds / times[name] for rival, seconds in rivals.items()},
        }
        for name in calls.ours
    ]


def measure(case: Case, peers: dict[str, Any], seconds: float) -> list[Row]:
    """Measure a point, and again if it is behind, which one busy moment must not decide."""
    calls = case.make(peers)
    times = best_times(calls, seconds)
    rows = make_rows(case, calls, times)
    if any(is_behind(row, rival) for row in rows for rival in row["rivals"]):
        again = best_times(calls, 2 * seconds)
        rows = make_rows(case, calls, {name: min(times[name], again[name]) for name in times})
    return rows


def beyond(row: Row, rival: str) -> float:
    """The ratio to a rival without the fixed cost that a call of ours may have."""
    ours = row["seconds"] - FIXED_COST
    return row["rivals"][rival] / ours if ours > 0 else float("inf")


def worst(row: Row) -> float:
    """The least such ratio to a rival of bits, or to NumPy where there is none."""
    bits = [name for name in row["rivals"] if name != "numpy"]
    return min((beyond(row, name) for name in bits or row["rivals"]), default=float("inf"))


def is_behind(row: Row, rival: str) -> bool:
    return beyond(row, rival) < BEHIND


def choose(only: list[str]) -> list[Case]:
    """The cases that contain one of some words, or match it as a pattern; all without words."""
    cases = list(all_cases())
    chosen = [
        case
        for case in cases
        if not only or any(word in case.name or fnmatch.fnmatch(case.name, word) for word in only)
    ]
    if not chosen:
        examples = ", ".join(case.name for case in cases[:: max(1, len(cases) // 5)])
        sys.exit(f"sweep: --only {' '.join(only)}: no case has such a name, as have {examples}")
    return chosen


def run_all(cases: list[Case], peers: dict[str, Any], seconds: float) -> Iterator[Row]:
    """Measure the cases on one thread, with a line for each."""
    start = time.perf_counter()
    with threads(1):
        limit_peers(peers, 1)
        for number, case in enumerate(cases, 1):
            rows = measure(case, peers, seconds)
            yield from rows
            least = min(map(worst, rows))
            print(
                f"{number:>4} of {len(cases)}, {time.perf_counter() - start:5.0f} s: "
                f"{case.name:<28} {least:8.2f}",
                flush=True,
            )


def print_row(row: Row) -> None:
    ratios = row["ratio"]
    cells = [f"{ratios[name]:9.2f}" if name in ratios else f"{'-':>9}" for name in RIVALS]
    behind = ", ".join(name for name in ratios if is_behind(row, name))
    cells.append(f"  behind {behind}" if behind else "")
    print(f"{row['call']:<18} {row['size']:<20} {1e6 * row['seconds']:11.2f} {''.join(cells)}")


def print_worst(rows: list[Row], count: int) -> None:
    """Print the rows with the worst ratios."""
    header = "".join(f"{name:>9}" for name in RIVALS)
    print(f"\n{'worst first, beyond 1 us':<39} {'bitops, us':>11} {header}")
    for row in sorted(rows, key=worst)[:count]:
        print_row(row)


def print_summary(rows: list[Row]) -> None:
    """Print, for each call and rival, the least and the middle ratio, and how many are behind."""
    print(f"\n{'':<18} {'rival':<8} {'points':>7} {'least':>8} {'median':>8} {'behind':>7}")
    for call in dict.fromkeys(row["call"] for row in rows):
        for rival in RIVALS:
            found = [row for row in rows if row["call"] == call and rival in row["ratio"]]
            if found:
                ratios = [row["ratio"][rival] for row in found]
                behind = sum(is_behind(row, rival) for row in found)
                print(
                    f"{call:<18} {rival:<8} {len(found):>7} {min(ratios):8.2f} "
                    f"{statistics.median(ratios):8.2f} {behind:>7}"
                )


COLORS = {"numpy": "tab:gray", "faiss": "tab:orange", "numkong": "tab:blue"}
MARKERS = {"numpy": "s", "faiss": "o", "numkong": "^"}


def medians(rows: Iterable[Row], rival: str) -> tuple[list[float], list[float]]:
    """The middle ratio of the points between two powers of ten of work, at their middle size."""
    decades: dict[int, list[Row]] = {}
    for row in rows:
        decades.setdefault(len(str(row["work"])), []).append(row)
    ordered = [decades[key] for key in sorted(decades)]
    return (
        [statistics.geometric_mean(row["work"] for row in found) for found in ordered],
        [statistics.median(row["ratio"][rival] for row in found) for found in ordered],
    )


def draw(rows: list[Row]) -> Any:
    """Draw the ratio over size, a field for each call; points, and lines through the medians."""
    calls = list(dict.fromkeys(row["call"] for row in rows))
    across = min(2, len(calls))
    down = -(-len(calls) // across)
    figure = new_figure("sweep")
    figure.set_size_inches(5 * across + 0.5, 2.6 * down + 0.8)
    fields = figure.subplots(down, across, squeeze=False, sharey=True)
    ratios = [ratio for row in rows for ratio in row["ratio"].values()]
    limits = (min([0.5, *ratios]) / 1.3, max([2, *ratios]) * 1.3)
    shown = {}
    for axes, call in zip(fields.ravel(), calls, strict=False):
        axes.axhline(1, color="black", linewidth=1)
        axes.axhspan(1e-9, 1, color="tab:red", alpha=0.07)
        for rival in RIVALS:
            found = [row for row in rows if row["call"] == call and rival in row["ratio"]]
            if found:
                x, y = [row["work"] for row in found], [row["ratio"][rival] for row in found]
                style = {"color": COLORS[rival], "marker": MARKERS[rival]}
                shown[rival] = axes.scatter(x, y, s=9, alpha=0.4, linewidths=0, **style)
                axes.plot(*medians(found, rival), color=COLORS[rival], linewidth=2)
        unit = "elements" if call == "pack" else "multiply-accumulates"
        axes.set(xscale="log", yscale="log", title=call, xlabel=unit, ylim=limits)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
    for axes in fields.ravel()[len(calls) :]:
        axes.set_visible(False)
    figure.supylabel("time of the rival / time of bitops")
    figure.legend(
        shown.values(), shown, loc="outside upper center", ncols=len(shown), markerscale=2
    )
    return figure


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="choose points")
    parser.add_argument("--seconds", type=float, default=0.2, help="time for each point, at least")
    parser.add_argument("--cpu", type=int, help="run on this CPU alone")
    parser.add_argument("--worst", type=int, default=40, metavar="N", help="rows of the table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    parser.add_argument("--from", type=Path, metavar="FILE", dest="kept", help="read such a file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw ratios over size, a PNG")
    return parser


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the chosen points; the report is what --json keeps."""
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    cases = choose(options.only)
    stamp = common.stamp()
    for name, value in stamp.items():
        print(f"{name}: {value}")
    peers = load_peers(("faiss", "numkong"))
    print("\nworst ratio of each point beyond 1 us; to NumPy only where no other has the function")
    return {"machine": stamp, "rows": list(run_all(cases, peers, options.seconds))}


def main(argv: list[str] | None = None) -> None:
    options = arguments().parse_args(argv)
    if options.plot:
        new_figure("sweep")  # fails now rather than in some minutes
    report = json.loads(options.kept.read_text()) if options.kept else measured(options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    print_worst(report["rows"], options.worst)
    print_summary(report["rows"])
    if options.plot:
        save_figure("sweep", draw(report["rows"]), options.plot)


if __name__ == "__main__":
    main()
