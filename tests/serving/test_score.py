"""Scores of a version are the towers' answers over the latest features."""

from __future__ import annotations

import polars as pl
import pytest

from kgrec.errors import InputError
from kgrec.serving.recommend import load
from kgrec.stages import RunResult


def test_scores_are_probabilities_in_the_order_of_the_requests(tiny: RunResult) -> None:
    version = load(tiny.workspace)
    users, items = version.users.entries.head(3), version.items.entries.head(3)
    asked = pl.DataFrame({"user": [*users, "nobody"], "item": [*items, items[0]]})
    found = version.score(asked)
    assert found["user"].to_list() == asked["user"].to_list()
    assert found["item"].to_list() == asked["item"].to_list()
    for name in set(found.columns) - {"user", "item"}:
        assert found[name].is_between(0, 1, closed="none").all()
    assert "conversion" in found.columns


def test_a_request_alone_scores_as_among_others(tiny: RunResult) -> None:
    version = load(tiny.workspace)
    asked = pl.DataFrame({"user": version.users.entries.head(5), "item": version.items.entries.head(5)})
    together, alone = version.score(asked), pl.concat(version.score(asked[[row]]) for row in range(5))
    assert together["conversion"].to_list() == pytest.approx(alone["conversion"].to_list(), abs=1e-6)


def test_missing_columns_are_named_together(tiny: RunResult) -> None:
    with pytest.raises(InputError) as caught:
        load(tiny.workspace).score(pl.DataFrame({"usr": ["a"]}))
    assert [problem.what for problem in caught.value.problems] == [
        "the table has no column 'user'", "the table has no column 'item'",
    ]  # fmt: skip
    assert "rename 'usr' to 'user'" in str(caught.value)
