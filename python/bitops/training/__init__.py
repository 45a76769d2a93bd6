"""Training: the loop, what watches it, losses, optimizers, schedules and further methods.

Imports layers and what they stand on, never recipes or the command line.
"""
