"""The kernels are deterministic for as long as anybody computes, whoever entered first."""

from __future__ import annotations

import torch

from kgrec.training.reproducible import reproducible


def mode() -> tuple[int, bool]:
    return torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory


def test_the_switches_are_given_back_when_the_last_one_leaves() -> None:
    before = mode()
    first, second = reproducible(1), reproducible(1)
    first.__enter__()
    second.__enter__()
    within = mode()
    assert within[0] == 2
    first.__exit__(None, None, None)  # who entered first leaves first, as threads may
    assert mode() == within
    second.__exit__(None, None, None)
    assert mode() == before
    with reproducible(0):
        assert mode() == within
    assert mode() == before
