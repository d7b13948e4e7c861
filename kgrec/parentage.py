"""A process that ends when the one that started it does, however that one ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_SIGNAL_AT_PARENTS_DEATH: Final = 1  # PR_SET_PDEATHSIG of Linux's prctl


def end_with(parent: int) -> None:
    """Have this process asked to end (SIGTERM) when its parent does; at once, where that has happened already.

    parent: the number of the process that started this one, in a thread that stays as long as that process does. It may
    be called between fork and exec. Linux alone tells a process of its parent's death; elsewhere nothing is done.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
