"""The whole chain on planted worlds: its result, what a second run reuses, what damage does, and fresh processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kgrec
from feature_store.catalog import VIEWS
from kgrec.artifacts import MANIFEST, load_artifact
from kgrec.errors import ArtifactError
from kgrec.stages import STAGES, RunResult
from tests import worlds

USUAL = tuple(stage for stage in STAGES if stage != "refit")  # that one has tests of its own
LISTS = ("recall", "ndcg", "mrr")
CLASSIFIED = {"auc", "log_loss", "ece", "num_rows", "positive_rate"}
LINKED = {"mrr", "hits@1", "hits@3", "hits@10", "num_triples"}

FRESH = """
import json, sys
import kgrec
from kgrec.tracking import load_logged, predict_logged
workspace, users = sys.argv[1], sys.argv[2].split(",")
own = kgrec.load(workspace).recommend(users, k=5)
model = load_logged("models:/tiny@promoted", f"sqlite:///{workspace}/mlflow.db")
logged = predict_logged(model, users, 5)
print(json.dumps([list(map(list, own.select("user", "item", "score").iter_rows())),
                  logged[["user", "item", "score"]].values.tolist()]))
"""


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """The config and the first result of the world of clicks; its workspace may be run in again."""
    folder = tmp_path_factory.mktemp("clicks")
    config = worlds.events_world(folder)
    return config, kgrec.run(config, folder / "workspace")


def again(config: Path, result: RunResult, *overrides: str) -> dict[str, Any]:
    return kgrec.run(config, result.workspace, overrides=overrides).as_dict()


def reused(answer: dict[str, Any]) -> set[str]:
    return {name for name, stage in answer["stages"].items() if stage["cached"]}


def is_contract_shaped(answer: dict[str, Any], tasks: set[str]) -> bool:
    """Say whether a result has the keys of the contract for these tasks, and no other figures than those."""
    assert {"run_id", "promoted", "gate", "metrics", "baselines", "stages", "peak_rss_mb", "report"} <= set(answer)
    assert set(answer["gate"]) == {"passed", "reasons"}
    assert set(answer["metrics"]) == {"validation", "test"}
    assert Path(answer["report"]).is_file()
    assert answer["peak_rss_mb"] > 0
    for stage in answer["stages"].values():
        assert set(stage) == {"seconds", "cached", "peak_rss_mb"}
    json.dumps(answer)
    test = answer["metrics"]["test"]
    assert set(test) == tasks
    for name in tasks & {"click", "conversion", "click_and_conversion"}:
        assert set(test[name]) >= CLASSIFIED
    return set(test["link"]) >= LINKED if "link" in tasks else True


def has_lists(figures: dict[str, Any], ks: tuple[int, ...]) -> bool:
    return {f"{name}@{k}" for name in LISTS for k in ks} <= set(figures) and "num_users" in figures


def test_a_log_of_events_and_a_graph(tiny: RunResult) -> None:
    answer = tiny.as_dict()
    assert is_contract_shaped(answer, {"ranking", "ranking_cold", "conversion", "link"})  # no impressions: no "click"
    assert answer["promoted"]
    assert answer["version"] == "1"
    assert tuple(answer["stages"]) == USUAL
    assert reused(answer) == set()
    assert has_lists(answer["metrics"]["test"]["ranking"], (5, 10))
    assert {"popularity", "item_knn", "ease"} <= set(answer["baselines"])
    assert all(has_lists(figures, (5, 10)) for figures in answer["baselines"].values())


def test_the_model_finds_the_planted_tastes(clicks: tuple[Path, RunResult]) -> None:
    answer = clicks[1].as_dict()
    test, baselines = answer["metrics"]["test"], answer["baselines"]
    assert is_contract_shaped(answer, {"ranking", "ranking_cold", "link"})
    assert test["ranking"]["recall@10"] > 2 * baselines["popularity"]["recall@10"]
    assert test["ranking"]["ndcg@10"] > baselines["item_knn"]["ndcg@10"]


def test_the_graph_places_items_that_nobody_clicked_in_train(clicks: tuple[Path, RunResult]) -> None:
    config, result = clicks
    cold = result.as_dict()["metrics"]["test"]["ranking_cold"]
    chance = 10 / 96
    assert cold["num_users"] > 50
    assert cold["recall@10"] > 2.5 * chance
    blind = again(config, result, "model.graph_weight=0.0", "training.kg_weight=0.0")
    assert blind["metrics"]["test"]["ranking_cold"]["recall@10"] < cold["recall@10"] / 2


def test_impressions_with_labels_and_a_context_column(tmp_path: Path) -> None:
    config = worlds.impressions_world(tmp_path)
    answer = kgrec.run(config, tmp_path / "workspace", views=VIEWS).as_dict()
    assert is_contract_shaped(answer, {"ranking", "click", "conversion", "click_and_conversion", "link"})
    assert answer["promoted"]
    test = answer["metrics"]["test"]
    assert test["click"]["auc"] > 0.62
    assert test["conversion"]["auc"] > 0.65  # the tab decides alone: the towers read the context
    assert test["conversion"]["num_rows"] < test["click"]["num_rows"] == test["click_and_conversion"]["num_rows"]
    second = kgrec.run(config, tmp_path / "workspace", views=VIEWS).as_dict()
    assert reused(second) == set(USUAL)
    assert (second["run_id"], second["version"]) == (answer["run_id"], answer["version"])


def test_triples_alone(tmp_path: Path) -> None:
    config = worlds.triples_world(tmp_path)
    result = kgrec.run(config, tmp_path / "workspace")
    answer = result.as_dict()
    assert is_contract_shaped(answer, {"link"})
    assert "version" not in answer
    assert not answer["promoted"]
    assert answer["baselines"] == {}
    assert set(answer["stages"]) == {"ingest", "split", "graph", "train", "evaluate", "promote"}
    assert answer["metrics"]["test"]["link"]["mrr"] > 0.8  # a ring is one rotation; by chance it would be about 0.1
    second = again(config, result)
    assert reused(second) == set(answer["stages"])
    assert second["run_id"] == answer["run_id"]


def test_a_second_run_reuses_everything_and_a_changed_key_only_what_depends_on_it(
    clicks: tuple[Path, RunResult],
) -> None:
    config, result = clicks
    first = result.as_dict()
    same = again(config, result)
    assert reused(same) == set(USUAL)
    assert (same["run_id"], same["version"], same["metrics"]) == (first["run_id"], first["version"], first["metrics"])
    rate = again(config, result, "training.learning_rate=0.04")
    assert reused(rate) == {"ingest", "split", "features", "graph", "baselines"}
    assert rate["run_id"] != first["run_id"]
    lengths = again(config, result, "evaluation.k=[10, 30]")
    assert {"ingest", "split", "features", "graph"} <= reused(lengths)
    assert not {"evaluate", "promote"} & reused(lengths)
    assert "recall@30" in lengths["metrics"]["test"]["ranking"]
    gate = again(config, result, "gate.tolerance=0.5")
    assert reused(gate) == set(USUAL) - {"promote"}


def test_changed_data_are_read_again(tmp_path: Path) -> None:
    config = worlds.triples_world(tmp_path)
    result = kgrec.run(config, tmp_path / "workspace", overrides=["training.epochs=1"])
    table = tmp_path / "ring.csv"
    table.write_text(table.read_text() + "n0,by1,n7,train\n")
    assert reused(again(config, result, "training.epochs=1")) == set()


def flip(path: Path, draw: random.Random) -> Callable[[], None]:
    """Change one bit of a file and return what puts it right again."""
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    path.write_bytes(damaged)
    return lambda: path.write_bytes(content) and None


def test_a_flipped_bit_in_any_file_of_any_artifact_is_refused_by_name(tiny_copy: Path) -> None:
    draw = random.Random(5)
    manifests = sorted((tiny_copy / "artifacts").rglob(MANIFEST))
    kinds = {manifest.parents[1].name for manifest in manifests}
    assert kinds == {"ingest", "split", "features", "graph", "baselines", "train", "evaluate", "index", "version"}
    flipped = 0
    for manifest in manifests:
        folder = manifest.parent
        load_artifact(folder)
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size):
            restore = flip(path, draw)
            with pytest.raises(ArtifactError) as caught:
                load_artifact(folder)
            assert str(path) in str(caught.value)
            restore()
            flipped += 1
        load_artifact(folder)
    assert flipped > 30


def test_a_missing_file_and_a_stranger_are_refused_by_name(tiny_copy: Path) -> None:
    folder = next((tiny_copy / "artifacts" / "train").iterdir())
    (folder / "stranger.txt").write_text("not mine")
    (folder / "history.json").unlink()
    with pytest.raises(ArtifactError) as caught:
        load_artifact(folder)
    assert f"{folder / 'history.json'}: missing" in str(caught.value)
    assert f"{folder / 'stranger.txt'}: not in the manifest" in str(caught.value)


def test_damage_stops_loading_and_running_and_the_remedy_helps(tiny: RunResult, tiny_copy: Path) -> None:
    draw = random.Random(6)
    vectors = next((tiny_copy / "artifacts" / "version").rglob("vectors.safetensors"))
    restore = flip(vectors, draw)
    with pytest.raises(ArtifactError, match=r"vectors\.safetensors"):
        kgrec.load(tiny_copy)
    restore()
    assert kgrec.load(tiny_copy).number == "1"
    table = next((tiny_copy / "artifacts" / "split").rglob("events.parquet"))
    flip(table, draw)
    with pytest.raises(ArtifactError, match=r"split/\w+/events\.parquet") as caught:
        kgrec.run(worlds.TINY, tiny_copy, views=VIEWS)
    assert f"remedy:  delete the folder {table.parent} and run again" in str(caught.value)
    shutil.rmtree(table.parent)
    healed = kgrec.run(worlds.TINY, tiny_copy, views=VIEWS).as_dict()
    assert reused(healed) == set(USUAL) - {"split"}
    assert worlds.bytes_of(tiny_copy / "artifacts") == worlds.bytes_of(tiny.workspace / "artifacts")


def test_a_version_and_its_logged_model_answer_alike_in_a_fresh_process(tiny: RunResult) -> None:
    users = ["u00", "u17", "nobody"]
    command = [sys.executable, "-c", FRESH, str(tiny.workspace), ",".join(users)]
    inherited = {name: value for name, value in os.environ.items() if not name.endswith("_URI")}  # MLflow sets some
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=inherited)
    assert done.returncode == 0, done.stderr
    own, logged = json.loads(done.stdout.splitlines()[-1])
    here = kgrec.load(tiny.workspace).recommend(users, k=5)
    assert own == [list(row) for row in here.select("user", "item", "score").iter_rows()]
    assert logged == own
    assert len(own) == 15


def test_the_answers_leave_out_what_the_user_had_and_come_with_reasons(tiny: RunResult) -> None:
    version = kgrec.load(tiny.workspace)
    answer = version.recommend(["u00"], k=10, explain=True)
    assert answer.columns == ["user", "item", "title", "score", "reason"]
    assert not set(answer["item"]) & set(version.history("u00")["item"])
    assert answer["score"].is_sorted(descending=True)
    own_genre = [worlds.genre_of(int(item[1:])) == worlds.taste_of(0) for item in answer["item"]]
    assert sum(own_genre) >= 7
    assert answer["reason"].str.len_chars().min() > 10
    assert answer["title"].str.starts_with("The ").all()


def test_the_tiny_tables_are_what_their_generator_writes(tmp_path: Path) -> None:
    worlds.write_tiny(tmp_path)
    committed = worlds.bytes_of(worlds.TINY.parent / "tiny")
    assert worlds.bytes_of(tmp_path) == committed
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 60_000
