"""The search itself, on a planted hill: it climbs, goes on after a kill, and survives a trial that fails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from kgrec.errors import InputError
from kgrec.training import search as module
from kgrec.training.search import Trial, search
from kgrec.training.search_space import Axis, SearchConfig, Value

SPACE = {
    "a": Axis(low=0.001, high=10.0, log=True),
    "b": Axis(choices=("good", "bad")),
    "c": Axis(low=0, high=9, whole=True),
}


def hill(number: int, settings: Mapping[str, Value]) -> float:
    a, b, c = settings["a"], settings["b"], settings["c"]
    assert isinstance(a, float)
    assert isinstance(c, int)
    return -abs(a - 1.0) - abs(c - 3) - (0 if b == "good" else 5)


def test_later_trials_are_better_than_the_random_ones_at_the_start(tmp_path: Path) -> None:
    found = search(SPACE, 40, 7, tmp_path / "a.journal", hill)
    assert [one.number for one in found] == list(range(40))
    assert all(one.value == hill(one.number, one.settings) for one in found)
    values = [one.value for one in found if one.value is not None]
    assert sum(values[-10:]) / 10 > sum(values[:5]) / 5 + 2
    assert max(values) > -2.5


def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = search(SPACE, 8, 7, tmp_path / "whole.journal", hill)
    asked: list[int] = []

    def killed(number: int, settings: Mapping[str, Value]) -> float:
        asked.append(number)
        if number == 6 and asked.count(6) == 1:
            raise KeyboardInterrupt
        return hill(number, settings)

    with pytest.raises(KeyboardInterrupt):
        search(SPACE, 8, 7, tmp_path / "cut.journal", killed)
    assert search(SPACE, 8, 7, tmp_path / "cut.journal", killed) == whole
    assert asked == [0, 1, 2, 3, 4, 5, 6, 6, 7]
    again = search(SPACE, 8, 7, tmp_path / "cut.journal", lambda *_: pytest.fail("nothing is left to try"))
    assert again == whole
    assert search(SPACE, 3, 8, tmp_path / "other.journal", hill) != whole[:3]


def test_a_trial_that_fails_is_told_and_not_asked_again(tmp_path: Path) -> None:
    def fails(number: int, settings: Mapping[str, Value]) -> float:
        if number == 1:
            raise FloatingPointError("diverged")
        return hill(number, settings)

    found = search(SPACE, 3, 7, tmp_path / "a.journal", fails)
    assert [one.fault for one in found] == [None, "diverged", None]
    assert found[1] == Trial(1, found[1].settings, None, "diverged")


def test_without_the_package_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "optuna", None)
    with pytest.raises(InputError, match=r"kgrec\[search\]"):
        search(SPACE, 1, 7, tmp_path / "a.journal", hill)


@pytest.mark.parametrize(("axis", "message"), [
    ({}, "choices"), ({"choices": (1,), "low": 1.0}, "choices"), ({"low": 2.0, "high": 1.0}, "low below high"),
    ({"low": 1.0}, "low below high"), ({"low": 0.0, "high": 1.0, "log": True}, "above 0"),
])  # fmt: skip
def test_an_axis_that_says_nothing_is_refused(axis: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Axis(**axis)


def test_the_default_space_is_valid() -> None:
    assert all(axis.values_at_the_border() for axis in SearchConfig().space.values())
