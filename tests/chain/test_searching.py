"""`kgrec search` on the tiny shop: validation chooses, the test part stays unread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feature_store.catalog import VIEWS
from kgrec.chain.context import StageProgress
from kgrec.chain.searching import search_config
from kgrec.errors import InputError
from kgrec.stages import RunResult
from tests import worlds

SPACE = 'search.space={ "training.learning_rate" = { choices = [0.02, 0.06] }, "model.layers" = { choices = [1, 2] } }'


def searched(workspace: Path, trials: int, told: list[StageProgress] | None = None) -> dict[str, Any]:
    listen = (lambda _: None) if told is None else told.append
    return search_config(worlds.TINY, workspace, trials=trials, overrides=[SPACE, "training.refit=true"], views=VIEWS,
                         progress=listen)  # fmt: skip


def test_a_search_tells_what_validation_says_and_goes_on(tiny: RunResult, tiny_copy: Path) -> None:
    before = set((tiny_copy / "artifacts" / "evaluate").iterdir())
    first = searched(tiny_copy, 1)
    assert first["own"] == pytest.approx(tiny.metrics["validation"]["ranking"]["ndcg@5"], abs=1e-6)
    told: list[StageProgress] = []
    both = searched(tiny_copy, 2, told)
    assert both["trials"][0] == first["trials"][0]
    assert [one.text[:7] for one in told if one.stage == "search"] == ["trial 2"]
    best = max(both["trials"], key=lambda trial: trial["value"])
    assert both["best"]["value"] == best["value"]
    assert both["better_than_own"] == (best["value"] > both["own"])
    assert bool(both["set"]) == both["better_than_own"]
    assert set((tiny_copy / "artifacts" / "evaluate").iterdir()) == before, "nothing was judged on test"
    assert len(list((tiny_copy / "searches").glob("tiny-*.journal"))) == 1


@pytest.mark.parametrize(("space", "message", "remedy"), [
    ('{ "training.learning_rat" = { choices = [1] } }', "unknown key", "training.learning_rate"),
    ('{ "model.layers" = { choices = [1, 9] } }', "less than or equal to 3", "axis"),
    ('{ "evaluation.target" = { choices = ["click"] } }', "is not searched", "what is asked"),
    ('{ "seed" = { low = 1, high = 3 } }', "is not searched", "what is asked"),
])  # fmt: skip
def test_what_cannot_be_searched_is_refused_before_anything_is_trained(
    tmp_path: Path, space: str, message: str, remedy: str
) -> None:
    with pytest.raises(InputError) as raised:
        search_config(worlds.TINY, tmp_path, overrides=[f"search.space={space}"])
    (problem,) = raised.value.problems
    assert message in str(problem)
    assert remedy in str(problem)
    assert not (tmp_path / "artifacts").exists() or not list((tmp_path / "artifacts").iterdir())
