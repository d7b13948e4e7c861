"""What is there when a chain starts is left out of garbage collection until it ends; circles are still found."""

from __future__ import annotations

import gc
import weakref

import pytest

from kgrec.garbage import seldom_collected


class Circle:
    def __init__(self) -> None:
        self.itself = self


def failing() -> None:
    with seldom_collected():
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] >= 50_000
        raise ZeroDivisionError


def test_the_collector_is_as_it_was_afterwards_whatever_happens() -> None:
    before = gc.get_threshold()
    with pytest.raises(ZeroDivisionError):
        failing()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_circles_made_meanwhile_are_found_when_many_objects_stay() -> None:
    with seldom_collected():
        seen = weakref.ref(Circle())
        kept = [[] for _ in range(120_000)]
        assert seen() is None
    assert len(kept) == 120_000
