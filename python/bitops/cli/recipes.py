"""`bitops recipes`: the published ways to train that `bitops train` knows."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "recipes", help="list the published ways to train that `train` knows"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a table of the recipes, each with its source and where it differs from that."""
    # imported here, so that `bitops info` and `bitops bench` load no training code
    from ..recipes import RECIPES
    from ..recipes.base import DATASETS

    print(
        f"{'name':<14} {'data':<9} {'paper':>6}  {'width':>5} {'epochs':>6}  {'quick':<13} source"
    )
    for recipe in RECIPES:
        for i, (kind, setting) in enumerate(recipe.settings.items()):
            quick, name = setting.resolve(quick=True), recipe.name if i == 0 else ""
            print(
                f"{name:<14} {DATASETS[kind]:<9} {setting.published or '-':>6}  "
                f"{setting.plan.width:>5} {setting.plan.epochs:>6}  "
                f"{f'{quick.width} x {quick.epochs}':<13} {recipe.paper if i == 0 else ''}"
            )
        print(f"{'':<14} {recipe.title}; tested with {recipe.tested}")
        if recipe.code:
            print(f"{'':<14} program: {recipe.code}")
        if recipe.notes:
            print(f"{'':<14} here: {recipe.notes}")
    print(
        "\npaper: test error in percent that the source reports. quick: width x epochs that\n"
        "`bitops train --quick` takes, to suit a laptop. Other numbers are options of `train`."
    )
    return 0
