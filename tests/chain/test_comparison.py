"""Whole comparisons on planted worlds: a graph that matters, tasks that agree or conflict, what is kept and reused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import kgrec
from feature_store.entities import ITEM_NEIGHBOURS
from kgrec import columns as c
from kgrec.artifacts import load_artifact
from kgrec.chain import knowledge, prepare
from kgrec.chain.arms import ARMS
from kgrec.chain.comparison import Shared, features_of
from kgrec.chain.context import Run, StageProgress
from kgrec.config import load_config
from kgrec.evaluation.compare import Outcome
from kgrec.tracking import Tracking
from kgrec.workspace import Workspace
from tests import worlds
from tests.calling import as_json, call

TRAINED_ALONE = [
    *(f"blocks.{part}=[0.0]" for part in ("linear", "kernel", "popularity", "repeat")),
    "evaluation.k=[10]",
]


def line(answer: dict[str, Any], arm: str, group: str, metric: str) -> dict[str, Any]:
    return next(
        found
        for found in answer["differences"]
        if (found["arm"], found["group"], found["metric"]) == (arm, group, metric)
    )


@pytest.fixture(scope="module")
def graph_world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A world whose last items nobody clicked in train: the graph alone can place them."""
    folder = tmp_path_factory.mktemp("graph-matters")
    config = worlds.events_world(folder)
    arms = ["full", "kg_off", "kg_shuffled", "balancing=fixed"]
    return folder, kgrec.compare(config, folder / "workspace", arms=arms, seeds=2, overrides=["training.epochs=4"])


def test_a_graph_that_matters_is_found_to_matter(graph_world: tuple[Path, dict[str, Any]]) -> None:
    answer = graph_world[1]
    for arm in ("kg_off", "kg_shuffled"):
        found = line(answer, arm, "ranking_cold", "recall@10")
        assert found["outcome"] == Outcome.WORSE
        assert found["p_holm"] <= 0.05
        assert found["interval"][1] < 0
    assert any("training never saw: the graph helps" in sentence for sentence in answer["verdicts"])
    assert "link" not in answer["arms"]["kg_off"]["test"]


def test_two_identical_arms_are_inside_the_noise(graph_world: tuple[Path, dict[str, Any]]) -> None:
    lines = [found for found in graph_world[1]["differences"] if found["arm"] == "balancing=fixed"]
    assert {(found["outcome"], found["difference"]) for found in lines} == {(Outcome.NOISE, 0.0)}


def test_the_figures_are_those_of_the_runs(graph_world: tuple[Path, dict[str, Any]]) -> None:
    folder, answer = graph_world
    run = kgrec.run(folder / "world.toml", folder / "workspace", overrides=["training.epochs=4"]).as_dict()
    assert run["stages"]["train"]["cached"], "the first seed of full is the run itself"
    assert run["stages"]["evaluate"]["cached"]
    ranking = answer["arms"]["full"]["test"]["ranking"]
    assert ranking["ndcg@10"]["per_seed"][0] == pytest.approx(run["metrics"]["test"]["ranking"]["ndcg@10"])
    assert answer["seeds"] == [7, 8]
    baselines = {name: levels["ranking"]["ndcg@10"]["mean"] for name, levels in answer["baselines"].items()}
    assert baselines == pytest.approx({name: figures["ndcg@10"] for name, figures in run["baselines"].items()})


def test_nothing_is_promoted_and_all_arms_share_split_features_and_baselines(
    graph_world: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    config = worlds.triples_world(tmp_path)
    answer = kgrec.compare(
        config, tmp_path / "workspace", arms="full,kg_shuffled", seeds=1, overrides=["training.epochs=4"]
    )
    assert not (tmp_path / "workspace" / "versions.json").exists()
    assert set(answer["arms"]["full"]["test"]) == {"link"}
    store = graph_world[0] / "workspace" / "artifacts"
    for stage in ("split", "features"):
        assert len(list((store / stage).iterdir())) == 1
    tuned = [load_artifact(path) for path in (store / "baselines").iterdir()]
    found = [json.loads(one.file("tuned.json").read_text()) for one in tuned]
    assert len(found) == 4, "the true graph, none, and a shuffled one for each seed"
    assert sum("left_out" in one["graph_kernel"] for one in found) == 1, "without triples there is no kernel of them"
    assert len({json.dumps(one["item_knn"], sort_keys=True) for one in found}) == 1
    graphs = [load_artifact(path) for path in (store / "graph").iterdir()]
    assert sorted(str(graph.facts.get("control")) for graph in graphs) == ["None", "off", "shuffled", "shuffled"]
    shuffled = next(graph for graph in graphs if graph.facts.get("control") == "shuffled")
    parts = pl.read_parquet(shuffled.file("triples.parquet"))[c.PART].unique()
    assert set(parts) == set(c.PARTS)


def test_a_comparison_that_is_repeated_reuses_every_arm_and_says_the_same(
    graph_world: tuple[Path, dict[str, Any]],
) -> None:
    folder, answer = graph_world
    told: list[StageProgress] = []
    again = kgrec.compare(
        folder / "world.toml", folder / "workspace", arms="full,kg_off,kg_shuffled,balancing=fixed", seeds=2,
        overrides=["training.epochs=4"], progress=told.append,
    )  # fmt: skip
    assert again == answer
    done = [one for one in told if one.text.startswith(("train done", "evaluate done"))]
    assert len(done) == 16
    assert all("reused" in one.text for one in done)


def test_the_report_and_mlflow_hold_the_comparison(graph_world: tuple[Path, dict[str, Any]]) -> None:
    folder, answer = graph_world
    report = Path(answer["report"])
    assert json.loads(report.with_name("report.json").read_text()) == answer
    for name in ("report.html", "report.md"):
        text = report.with_name(name).read_text()
        assert "the graph helps" in text
    client = Tracking(Workspace(folder / "workspace"))._client
    parent = client.get_run(answer["run_id"])
    assert parent.data.tags["kgrec.compare"] == "parent"
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{answer['run_id']}'", max_results=50
    )
    assert sorted((run.data.params["arm"], run.data.params["seed"]) for run in children) == sorted(
        (arm, str(seed)) for arm in answer["arms"] for seed in answer["seeds"]
    )
    full = next(run for run in children if (run.data.params["arm"], run.data.params["seed"]) == ("full", "8"))
    expected = answer["arms"]["full"]["test"]["ranking"]["ndcg@10"]["per_seed"][1]
    assert full.data.metrics["test/ranking/ndcg_at_10"] == pytest.approx(expected)
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}


def two_tasks(folder: Path, *, agree: bool) -> dict[str, Any]:
    """Compare click and links together and alone, where the graph groups items by genre, or against it.

    Propagation leaves the graph out, and the links weigh ten times as much as the clicks.
    """
    config = worlds.events_world(folder)
    group = (lambda i, j: i % 4 + 4 * (j % 2)) if agree else (lambda i, j: (i // 4 + j) % 8)
    rows = [(worlds.entity_id(i), f"r{j}", f"x{group(i, j)}") for i in range(96) for j in range(3)]
    worlds.write_table(folder / "triples.csv", ("head", "relation", "tail"), rows)
    overrides = ["training.epochs=3", "training.kg_weight=10", "model.graph_weight=0.0", "knowledge.test=0.3",
                 "knowledge.validation=0.1", *TRAINED_ALONE]  # fmt: skip
    return kgrec.compare(
        config, folder / "workspace", arms="full,click_only,kg_only", seeds=2, overrides=overrides
    )  # fmt: skip


def test_two_conflicting_tasks_are_found_to_harm_each_other(tmp_path: Path) -> None:
    answer = two_tasks(tmp_path, agree=False)
    assert line(answer, "kg_only", "link", "mrr")["outcome"] == Outcome.BETTER
    assert any(sentence.startswith("Negative transfer in missing links") for sentence in answer["verdicts"])
    assert {found["arm"] for found in answer["differences"] if found["group"] == "link"} == {"kg_only"}
    assert {found["segment"].partition(" ")[0] for found in answer["segments"]} == {"users", "relation"}


def test_two_tasks_that_agree_are_not(tmp_path: Path) -> None:
    answer = two_tasks(tmp_path, agree=True)
    assert line(answer, "kg_only", "link", "mrr")["outcome"] == Outcome.WORSE
    assert line(answer, "click_only", "ranking", "ndcg@10")["difference"] < 0
    assert not any(sentence.startswith("Negative transfer") for sentence in answer["verdicts"])


@pytest.mark.usefixtures("without_prefect")
def test_the_command_prints_verdicts_and_tables_or_one_object(graph_world: tuple[Path, dict[str, Any]]) -> None:
    folder, answer = graph_world
    words = ["compare", folder / "world.toml", "--workspace", folder / "workspace", "--set", "training.epochs=4",
             "--seeds", "2", "--arms", "full,kg_off,kg_shuffled,balancing=fixed"]  # fmt: skip
    shown = call(*words)
    assert shown.exit_code == 0, shown.stderr
    assert "the graph helps" in shown.stdout
    assert "report: " in shown.stdout
    result = call(*words, "--json")
    found = as_json(result)
    assert found["differences"] == json.loads(json.dumps(answer["differences"]))


@pytest.mark.usefixtures("without_prefect")
def test_the_command_refuses_arms_that_are_none(tmp_path: Path) -> None:
    result = call("compare", worlds.TINY, "--arms", "full,kg_of", "--workspace", tmp_path / "workspace")
    assert result.exit_code == 2
    assert "did you mean 'kg_off'?" in result.stderr


def test_features_that_read_the_graph_are_under_the_control_too(tmp_path: Path) -> None:
    config = worlds.events_world(tmp_path)
    place = Workspace(tmp_path / "workspace")
    for views, made in (((ITEM_NEIGHBOURS,), 3), ((), 1)):
        run = Run(load_config(config), place, views)
        ingested = prepare.ingest(run)
        log = prepare.split(run, ingested)
        graph = knowledge.graph(run, ingested, log)
        shared = Shared(ingested, log, prepare.features(run, ingested, log), graph, None)
        found = [features_of(run, ARMS[name], shared) for name in ("full", "kg_off", "kg_shuffled", "click_only")]
        assert len({artifact.key for artifact in found if artifact is not None}) == made
        assert found[3] is found[0] is shared.features
        if views:
            assert found[1] is not None
            assert "item_neighbours" in found[1].facts["left_out"], "without triples there are no neighbours"
