"""The command `bitops` as it is installed.

It lies beside the package, since it must say in one line why that cannot be imported, for example
because BITOPS_ISA names no instruction set.
"""

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        from bitops.cli.main import main as run
    except ImportError as error:
        print(f"bitops: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # while modules load, which takes a moment
        print("\nbitops: interrupted", file=sys.stderr)
        return 130
    return run()
