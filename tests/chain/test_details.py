"""The details of a run on the planted world, and what sets them off there."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from kgrec import columns as c
from kgrec.chain.alarms import names_read
from kgrec.chain.details import read_details
from kgrec.chain.groups import ItemGroups, NotThereError
from kgrec.config import RunConfig
from kgrec.stages import RunResult
from tests.chain.small_parts import parts
from tests.chain.test_answers import evaluated_of


@pytest.fixture(scope="module")
def details(tiny: RunResult) -> dict:
    return read_details(evaluated_of(tiny))


def test_an_honest_run_sets_no_alarm_off(details: dict) -> None:
    assert details["alarms"] == []


def test_every_system_has_its_figures_and_the_result_holds_them(tiny: RunResult, details: dict) -> None:
    result = tiny.as_dict()
    assert result["evaluation"] == details
    for section in ("beyond_accuracy", "debiased"):
        assert set(details[section]) == {"model", *result["baselines"]}
    popular, model = (details["beyond_accuracy"][name] for name in ("popularity", "model"))
    assert model["coverage@5"] > popular["coverage@5"]
    assert model["gini@5"] < popular["gini@5"]
    assert model["distance_to_history@5"] < popular["distance_to_history@5"], "everybody likes one genre here"
    assert "serendipity@5" in model
    assert "serendipity@5" not in popular


def test_segments_add_up_to_the_whole(tiny: RunResult, details: dict) -> None:
    ranking = tiny.as_dict()["metrics"]["test"]["ranking"]
    lines = [line for line in details["segments"] if line["segment"] == "items before"]
    assert sum(line["num_users"] for line in lines) == ranking["num_users"]
    mean = np.average(
        [line["figures"]["model"]["ndcg@5"] for line in lines], weights=[line["num_users"] for line in lines]
    )
    assert mean == pytest.approx(ranking["ndcg@5"])
    cold = next(line for line in details["segments"] if line["group"].startswith("cold"))
    assert cold["figures"]["model"]["recall@5"] == pytest.approx(
        tiny.as_dict()["metrics"]["test"]["ranking_cold"]["recall@5"]
    )


def test_the_report_shows_them(tiny: RunResult) -> None:
    page = tiny.released.report.read_text()
    for heading in ("For whom, and for which items", "What the lists are like", "Freed of what the log happens"):
        assert heading in page
    assert "Alarms" not in page
    saved = json.loads(tiny.released.report.with_name("report.json").read_text())
    assert saved["details"]["segments"]


def test_groups_come_from_relations_and_columns_and_a_wrong_name_is_told(tiny: RunResult) -> None:
    store = evaluated_of(tiny).path.parent.parent
    from kgrec.artifacts import ArtifactStore

    def newest(kind: str):
        key = next(path.name for path in (store / kind).iterdir() if not path.name.startswith("."))
        return ArtifactStore(store).find(kind, key)

    groups = ItemGroups(newest("split"), newest("graph"))
    matrix, names = groups.of("genre")
    assert sorted(names) == ["blues", "fugue", "polka", "tango"]
    assert matrix.sum(axis=1).max() == 1
    years, values = groups.of("year")
    assert years.shape[1] == len(values)
    assert groups.nodes().nnz > 0
    with pytest.raises(NotThereError, match="did you mean 'genre'"):
        groups.of("gnre")


def test_what_is_read_and_what_happened_are_told_apart() -> None:
    log = {"path": "x.csv", "layout": "impressions", "context": ["tab", "liked"], "labels": {"click": "liked"}}
    read, happened = names_read(RunConfig.model_validate({"interactions": log}))
    assert set(read) & set(happened) == {"liked"}
    assert names_read(RunConfig()) == ([], [])


def test_small_parts_have_no_random_column(tmp_path) -> None:
    log, *_ = parts(tmp_path)
    assert c.RANDOM not in pl.read_parquet_schema(log.file("labelled.parquet"))
