"""How Python runs while a chain does: garbage is looked for seldom, and threads take turns quickly."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_OBJECTS: Final = 50_000  # made since the last look, before the next; Python's own is 700
_TURN: Final = 0.0005  # seconds until a thread that waits may go on; Python's own is 0.005


@contextmanager
def at_work() -> Iterator[None]:
    """Leave what is there now (modules, mostly) out of garbage collection, look for more seldom, and switch quickly.

    What counts references is freed at once, as ever; only circles wait. A thread that comes back from a library (a
    stage asks Polars hundreds of times) waits for whoever holds the interpreter until its turn ends. All is as it was
    afterwards.
    """
    threshold, turn = gc.get_threshold(), sys.getswitchinterval()
    gc.freeze()
    gc.set_threshold(max(_OBJECTS, threshold[0]), *threshold[1:])
    sys.setswitchinterval(min(_TURN, turn))
    try:
        yield
    finally:
        sys.setswitchinterval(turn)
        gc.set_threshold(*threshold)
        gc.unfreeze()
