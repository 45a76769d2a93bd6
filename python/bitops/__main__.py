"""Run the command line as `python -m bitops`."""

from .cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
