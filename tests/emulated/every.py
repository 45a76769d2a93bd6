"""A plugin for pytest: of all tests, only those that BITOPS_EVERY divides, since emulation is slow."""

import os


def pytest_collection_modifyitems(config, items):
    every = int(os.environ.get("BITOPS_EVERY", "1"))
    config.hook.pytest_deselected(items=[item for i, item in enumerate(items) if i % every])
    items[:] = items[::every]
