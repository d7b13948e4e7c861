"""A step's tables come from memory that the process kept, not from pages that the system zeroes anew."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
from kgrec.allocator import keep_freed_memory

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed_memory()

def step():
    tables = [torch.zeros(35_000, 64) for _ in range(12)]
    return sum(float(table[0, 0]) for table in tables)

for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)
"""


def faults(mode: str) -> float:
    """Return the page faults of a step, where every block of 128 KiB is mapped unless the process asks otherwise."""
    world = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", STEPS, mode]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=world).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc: there is no such switch")
def test_tables_come_from_kept_memory() -> None:
    assert faults("keep") < 100
    assert faults("give back") > 1000
