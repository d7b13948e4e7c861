"""Work beside requests: a thread that computes for a little and pauses for longer, so that nobody waits for it.

Niceness does not do it: threads of one process share Python's lock, and whoever waits for that waits for its holder's
turn on the processor, however rarely it comes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

_WORK_SECONDS: Final = 0.001
_SHARE: Final = 0.25


@contextmanager
def paced(work_seconds: float = _WORK_SECONDS, share: float = _SHARE) -> Iterator[None]:
    """Let this thread have about a share of one processor inside the block, in pieces of about `work_seconds`.

    It looks at its clock wherever a function begins or ends, and sleeps there when the piece is over; one call of a
    library is not cut, and other threads that a library starts are not counted. A lock that the thread holds, it holds
    while it sleeps: nothing that answers should wait for one.
    """
    rest = (1 - share) / share
    began = time.thread_time()

    def look(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal began
        worked = time.thread_time() - began
        if worked > work_seconds:
            time.sleep(worked * rest)
            began = time.thread_time()

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)
