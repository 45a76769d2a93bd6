"""Print the machine beside the figures, and the rates and ratios below pytest-benchmark's table."""

from __future__ import annotations

from typing import Any

import pytest

import common


def pytest_report_header() -> list[str]:
    return [f"{name}: {value}" for name, value in common.stamp().items()]


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info["bitops"] = common.stamp()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    rows = [bench for bench in getattr(session, "benchmarks", []) if bench.extra_info]
    if not rows:
        return
    terminalreporter.section("rate, and ratio to the NumPy or float32 rival in the same run")
    for bench in rows:
        info = bench.extra_info
        terminalreporter.line(
            f"{bench.name:<58} {info['rate']:9.2f} {info['unit']:<7}"
            f" {info['ratio']:7.1f} x   spread {info['spread']:4.0%}"
        )
