"""The command line: main, and one file a command with `add_parser(commands)` and `run(args)`.

May import everything else. Commands that train import the training code only when they run.
"""
