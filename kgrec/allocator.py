"""Keep freed memory in the process while a chain runs.

Without it glibc gives blocks of some megabytes back to the system, and the next one of that size is zeroed page by page
anew: four thousand page faults and a twelfth of a training step on ml-100k (`benchmarks/step_profile.py` prints both).
"""

from __future__ import annotations

import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1  # of mallopt(3): bytes free at the heap's end before it shrinks
_MMAP_THRESHOLD: Final = -3  # bytes from which a block is mapped on its own, and unmapped when freed
_ARENAS: Final = -8  # how many heaps threads may have, each of which keeps to itself what was freed in it
_LARGEST_BLOCKS: Final = (2**30, 32 * 2**20)  # the second is what older versions of glibc take at most
_KEPT: Final = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep up to 2 GiB of freed memory and take blocks up to 1 GiB from it; say whether it could be asked.

    All threads that start from now on share one heap: what one has freed is there for the others.
    It holds for the rest of the process. Other C libraries (musl, macOS) have no such switch: nothing happens there.
    Source: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    taken = any(mallopt(_MMAP_THRESHOLD, largest) for largest in _LARGEST_BLOCKS)
    return taken and bool(mallopt(_TRIM_THRESHOLD, _KEPT)) and bool(mallopt(_ARENAS, 1))
