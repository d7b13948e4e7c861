"""While a chain runs, what was there is left out of garbage collection, circles are found, and turns are short."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest

from kgrec.interpreter import at_work


class Circle:
    def __init__(self) -> None:
        self.itself = self


def failing(before_it: float) -> None:
    with at_work():
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] >= 50_000
        assert sys.getswitchinterval() < before_it
        raise ZeroDivisionError


def test_the_interpreter_is_as_it_was_afterwards_whatever_happens() -> None:
    before, turn = gc.get_threshold(), sys.getswitchinterval()
    with pytest.raises(ZeroDivisionError):
        failing(turn)
    assert (gc.get_threshold(), sys.getswitchinterval()) == (before, turn)
    assert gc.get_freeze_count() == 0


def test_circles_made_meanwhile_are_found_when_many_objects_stay() -> None:
    with at_work():
        seen = weakref.ref(Circle())
        kept = [[] for _ in range(120_000)]
        assert seen() is None
    assert len(kept) == 120_000
