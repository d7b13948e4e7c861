"""Randomness is handed in: one seed for a run, one named generator for each purpose.

A purpose's stream depends on the seed and its names alone, so that a new consumer of randomness never
shifts another's numbers, and an epoch that is replayed after a crash draws what it drew before.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for `purpose`, a path of names and numbers such as ("negatives", epoch).

    >>> derive_seed(7, "split") == derive_seed(7, "split")
    True
    >>> derive_seed(7, "split") == derive_seed(7, "batches", 0)
    False
    """
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return NumPy's generator for `purpose`. A torch generator: `torch.Generator().manual_seed(derive_seed(...))`."""
    return np.random.default_rng(derive_seed(seed, *purpose))
