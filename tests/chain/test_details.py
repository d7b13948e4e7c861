"""The details of a run on the planted world, and what sets them off there."""

from __future__ import annotations

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch

from feature_store.catalog import VIEWS
from kgrec import columns as c
from kgrec.chain.alarms import names_read
from kgrec.chain.context import Run
from kgrec.chain.details import read_details
from kgrec.chain.groups import ItemGroups, NotThereError
from kgrec.config import RunConfig, load_config
from kgrec.evaluation.debiased import propensities
from kgrec.evaluation.ranking import METRICS
from kgrec.stages import RunResult, run_chain
from kgrec.workspace import Workspace
from tests import worlds
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
    assert set(lines[0]["figures"]["model"]) == {f"{name}@5" for name in METRICS}
    cold = next(line for line in details["segments"] if line["group"].startswith("cold"))
    assert cold["figures"]["model"]["recall@5"] == pytest.approx(
        tiny.as_dict()["metrics"]["test"]["ranking_cold"]["recall@5"]
    )


def test_relations_are_judged_one_by_one_and_add_up(tiny: RunResult, details: dict) -> None:
    link = tiny.as_dict()["metrics"]["test"]["link"]
    assert {line["relation"] for line in details["links"]} <= {"genre", "maker"}
    sizes = [line["num_triples"] for line in details["links"]]
    assert sum(sizes) == link["num_triples"]
    assert sizes == sorted(sizes, reverse=True)
    for figure in ("mrr", "hits@1", "hits@10"):
        mean = np.average([line[figure] for line in details["links"]], weights=sizes)
        assert mean == pytest.approx(link[figure])
    assert "relation by relation" in tiny.released.report.read_text()


@pytest.fixture(scope="module")
def asked_for(tiny: RunResult, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The details of the same run where the config asks for all that it can."""
    workspace = tmp_path_factory.mktemp("asked") / "workspace"
    shutil.copytree(tiny.workspace, workspace)
    asked = ['user_columns=["age"]', 'genres="genre"', 'provider="maker"', "new_user_events=2", "tail_share=0.5",
             "propensity_power=0.0", "least_propensity=1.0"]  # fmt: skip
    overrides = [f"evaluation.details.{one}" for one in asked]
    run = Run(load_config(worlds.TINY, overrides), Workspace(workspace), VIEWS)
    evaluated = run_chain(run, until="evaluate")
    assert {name for name, report in run.reports.items() if not report.cached} == {"evaluate"}, (
        "nothing is learned anew"
    )
    return read_details(evaluated)


def test_every_key_of_the_details_has_its_effect(tiny: RunResult, details: dict, asked_for: dict) -> None:
    ranking = tiny.as_dict()["metrics"]["test"]["ranking"]
    sizes = {(line["segment"], line["group"]): line["num_users"] for line in asked_for["segments"]}
    before = {(line["segment"], line["group"]): line["num_users"] for line in details["segments"]}
    ages = {group: size for (segment, group), size in sizes.items() if segment == "age"}
    assert len(ages) == 4, "quarters of a number"
    assert sum(ages.values()) == ranking["num_users"]
    assert set(asked_for["fairness"]["users"]) == {"age"}
    assert not details["fairness"]["users"]
    assert ("items before", "3 items or more") in sizes
    assert ("items before", "6 items or more") in before
    assert sizes["relevant items", "long tail"] < before["relevant items", "long tail"]
    assert sizes["relevant items", "popular"] > before["relevant items", "popular"]
    assert (
        asked_for["beyond_accuracy"]["model"]["miscalibration@5"]
        < (asked_for["beyond_accuracy"]["popularity"]["miscalibration@5"])
    ), "the model knows the planted tastes"
    assert "miscalibration@5" not in details["beyond_accuracy"]["model"]
    assert asked_for["fairness"]["providers"]["model"]["num_providers"] == 8
    assert "providers" not in details["fairness"]
    plain, weighted = (found["debiased"]["model"] for found in (asked_for, details))
    assert plain["ips_hits@5"] == pytest.approx(5 * ranking["precision@5"]), "equal chances free of nothing"
    assert weighted["ips_hits@5"] > plain["ips_hits@5"]
    assert weighted["effective_size"] < plain["effective_size"]


def test_each_key_of_the_chances_is_enough_to_make_them_equal() -> None:
    counts = torch.tensor([9, 3, 0])
    assert propensities(counts, 0.0, 0.01)[:2].tolist() == [1.0, 1.0]
    assert propensities(counts, 0.5, 1.0).tolist() == [1.0, 1.0, 1.0]


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
