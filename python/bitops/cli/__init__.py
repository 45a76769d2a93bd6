"""The command line, a file a command.

May import everything else.
"""
