"""The choice of a score's parts on validation."""

from __future__ import annotations

import json

import pytest

from kgrec.artifacts import load_artifact
from kgrec.stages import RunResult


def facts_of(tiny: RunResult) -> dict:
    (folder,) = (tiny.workspace / "artifacts" / "train").iterdir()
    return load_artifact(folder, "train").facts["blocks"]


def test_the_pooled_figure_is_that_of_the_whole_catalogue_where_the_pool_holds_it(tiny: RunResult) -> None:
    told = facts_of(tiny)
    assert told["validation_ndcg@5"] == pytest.approx(tiny.metrics["validation"]["ranking"]["ndcg@5"], abs=1e-6)
    assert told["validation_ndcg@5"] >= told["validation_ndcg@5_trained_alone"]
    assert told["users"] == tiny.metrics["validation"]["ranking"]["num_users"]


def test_the_history_shows_what_was_trained_alone_before_parts_were_added(tiny: RunResult) -> None:
    (folder,) = (tiny.workspace / "artifacts" / "train").iterdir()
    history = json.loads((folder / "history.json").read_text())
    best = max(epoch["validation/ndcg@5"] for epoch in history if "validation/ndcg@5" in epoch)
    assert facts_of(tiny)["validation_ndcg@5_trained_alone"] <= best + 1e-6
