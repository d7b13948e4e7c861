"""Equal inputs, equal bits: deterministic kernels and a stated number of threads while something computes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Final

import torch


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Use deterministic kernels and a chosen number of threads, and give back what was set before.

    Several threads may be within at once: the kernels stay deterministic until the last of them leaves.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    _kernels.enter()
    try:
        yield
    finally:
        _kernels.leave()
        torch.set_num_threads(before)


def beside(name: str) -> ThreadPoolExecutor:
    """Return one more thread to compute in, whose products take as many threads as those of this one."""
    threads = (torch.get_num_threads(),)
    return ThreadPoolExecutor(1, thread_name_prefix=name, initializer=torch.set_num_threads, initargs=threads)


class _Kernels:
    """Torch's switches of the whole process, which the first to enter turns and the last to leave turns back."""

    def __init__(self) -> None:
        self._lock, self._within = Lock(), 0
        self._mode, self._filled = 0, True

    def enter(self) -> None:
        with self._lock:
            if self._within == 0:
                self._mode = torch.get_deterministic_debug_mode()
                self._filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
            self._within += 1
            torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms loads the compiler: seconds
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a tenth of a step

    def leave(self) -> None:
        with self._lock:
            self._within -= 1
            if self._within == 0:
                torch.set_deterministic_debug_mode(self._mode)
                torch.utils.deterministic.fill_uninitialized_memory = self._filled  # type: ignore[attr-defined]


_kernels: Final = _Kernels()
