"""Look for garbage seldom while a chain runs: its objects live long, and Python looks at them again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_OBJECTS: Final = 50_000  # made since the last look, before the next; Python's own is 700


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Leave what is there now (modules, mostly) out of garbage collection, and look for more of it less often.

    Both are as they were afterwards. What counts references is freed at once, as ever; only circles wait.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(max(_OBJECTS, before[0]), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
