"""Keep freed memory in the process while something trains: a step frees and asks for the same tables again.

Without it glibc gives tables of some megabytes back to the system and each step has them zeroed page by page anew: four
thousand page faults and a twelfth of a step on ml-100k (`benchmarks/step_profile.py` prints both).
"""

from __future__ import annotations

import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1  # of mallopt(3): bytes free at the heap's end before it shrinks
_MMAP_THRESHOLD: Final = -3  # bytes from which a block is mapped on its own, and unmapped when freed
_LARGEST_BLOCK: Final = 32 * 2**20  # what glibc takes at most as the second
_KEPT: Final = 2**30


def keep_freed_memory() -> bool:
    """Let glibc keep up to 1 GiB of freed memory and take blocks up to 32 MiB from it; say whether it could be asked.

    It holds for the rest of the process. Other C libraries (musl, macOS) have no such switch: nothing happens there.
    Source: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
