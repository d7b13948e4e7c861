from __future__ import annotations

import os
import subprocess
import sys

import pytest
from fastapi.testclient import TestClient
from mlflow import MlflowClient
from mlflow.pyfunc import scoring_server
from mlflow.utils import requirements_utils

from kgrec.artifacts import ArtifactStore
from kgrec.serving.recommend import load
from kgrec.tracking import ALIAS, KEY_TAG, VERSION_TAG, RunRecord, Tracking, code_model, load_logged, predict_logged
from kgrec.workspace import Workspace
from tests.serving.small_version import make_version

KEY = "0123456789abcdef"


def record(**changes):
    facts = {
        "key": KEY,
        "name": "shop",
        "params": {"seed": 7, "model": {"dimensions": 8}, "evaluation": {"k": [10]}, "long": "x" * 900},
        "metrics": {"test/ranking/ndcg@10": 0.25, "test/ranking/num_users": 3.0},
        "history": [{"loss": 2.0, "ndcg@10": 0.1}, {"loss": 1.0}],
        "dataset_name": "shop",
        "dataset_digest": "d" * 64,
        "dataset_profile": {"rows": 5},
        "tags": {"kgrec.gate": "passed"},
    }
    return RunRecord(**(facts | changes))


def logged_of(tracking, run_id):
    """Return what MLflow holds of a run, without times."""
    client = tracking._client
    run = client.get_run(run_id)
    history = {
        name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)]
        for name in run.data.metrics
    }
    datasets = [
        (found.dataset.name, found.dataset.digest, found.dataset.profile) for found in run.inputs.dataset_inputs
    ]
    files = [found.path for found in client.list_artifacts(run_id, "report")]
    return run.data.params, history, datasets, files


@pytest.mark.slow
def test_a_run_is_found_again_logged_once_registered_once_and_its_alias_moves(tmp_path, monkeypatch):
    place = Workspace(tmp_path / "workspace")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("<p>figures</p>")

    def read():
        raise AssertionError("MLflow reads the file lists of all packages")

    monkeypatch.setattr(requirements_utils, "_MODULES_TO_PACKAGES", None)
    monkeypatch.setattr(requirements_utils.importlib_metadata, "packages_distributions", read)
    tracking = Tracking(place)
    run_id = tracking.open_run(KEY, "shop")
    assert tracking.open_run(KEY, "shop") == run_id
    assert Tracking(place).open_run(KEY, "shop") == run_id, "another process finds it, too"
    other = tracking.open_run("f" * 16, "shop")
    assert other != run_id
    assert tracking._client.get_run(run_id).data.tags[KEY_TAG] == KEY

    tracking.log_run(run_id, record(), tmp_path / "report")
    first = logged_of(tracking, run_id)
    params, history, datasets, files = first
    assert params["model.dimensions"] == "8"
    assert params["evaluation.k"] == "[10]"
    assert len(params["long"]) == 500
    assert history["loss"] == [(0, 2.0), (1, 1.0)]
    assert history["ndcg_at_10"] == [(0, 0.1)]
    assert history["test/ranking/ndcg_at_10"] == [(0, 0.25)]
    assert datasets == [("shop", "d" * 36, '{"rows": 5}')]
    assert files == ["report/report.html"]
    tracking.log_run(run_id, record(), tmp_path / "report")
    assert logged_of(tracking, run_id) == first, "a run that was killed half-way logs the rest, and nothing twice"

    artifact = make_version(ArtifactStore(tmp_path / "artifacts"))
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "get_metric_history", lambda *told: asked.append(told) or [])
        ids = {tracking.log_version(other, "shop", "2", artifact.path) for _ in range(2)}
    assert not asked, "a model that is logged before the figures costs no look at each one's history"
    for model_id in (*ids, *ids):
        tracking.log_run(other, record(), model_id=model_id)
    (found,) = (tracking._client.get_logged_model(model_id) for model_id in ids)
    told = sorted((metric.key, metric.value) for metric in found.metrics)
    assert told == [("test/ranking/ndcg_at_10", 0.25), ("test/ranking/num_users", 3.0)]
    tracking.log_version(run_id, "shop", "1", artifact.path)
    versions = tracking._client.search_model_versions("name = 'shop'")
    assert sorted(found.tags[VERSION_TAG] for found in versions) == ["1", "2"]
    tracking.finish(run_id)
    assert tracking._client.get_run(run_id).info.status == "FINISHED"

    for number in ("1", "2", "1"):
        tracking.set_promoted("shop", number)
        assert tracking._client.get_model_version_by_alias("shop", ALIAS).tags[VERSION_TAG] == number
    tracking.set_promoted("shop", "9")
    assert tracking._client.get_model_version_by_alias("shop", ALIAS).tags[VERSION_TAG] == "1"

    model = load_logged(tracking.model_uri("shop", "1"), tracking.uri)
    answer = predict_logged(model, ["ann", "nobody"], k=2)
    assert list(answer.columns) == ["user", "item", "title", "score"]
    assert answer["user"].tolist() == ["ann", "ann", "nobody", "nobody"]
    assert answer["item"].tolist() == ["f", "d", "a", "b"]


def test_the_code_model_is_found():
    text = code_model().read_text()
    assert "set_model" in text
    assert code_model().name == "retriever.py"


def test_mlflow_serves_the_same_answers_over_http(tiny):
    """The very application that `mlflow models serve` runs, asked as its users ask it."""
    tracking = Tracking(Workspace(tiny.workspace))
    served = TestClient(scoring_server.init(load_logged(tracking.model_uri("tiny", "1"), tracking.uri)))
    users = ["u01", "u02", "nobody"]
    frame = {"columns": ["user"], "data": [[user] for user in users]}
    answer = served.post("/invocations", json={"dataframe_split": frame, "params": {"k": 3}})
    assert answer.status_code == 200
    wanted = load(tiny.workspace).recommend(users, k=3).select("user", "item", "title", "score").to_dicts()
    found = answer.json()["predictions"]
    assert [one | {"score": None} for one in found] == [one | {"score": None} for one in wanted]
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in wanted])
    assert served.post("/invocations", json={"dataframe_split": {"columns": ["item"], "data": [["i1"]]}}).is_error


@pytest.mark.parametrize(("named", "databases"), [("", True), ("http://127.0.0.1:9", False), ("ftp://nothing", True)])
def test_what_logging_takes_is_loaded_while_others_compute(named: str, databases: bool) -> None:
    """In a process of its own: this one has loaded it all. A server needs nothing of MLflow's database layer; an
    address that no run could log to is refused when one would, not by a training that logs nothing.
    """
    script = """
import sys
from kgrec.tracking import load_ahead
needed = ("mlflow.store.tracking.sqlalchemy_store", "mlflow.pyfunc.model")
before = [name in sys.modules for name in needed]
thread = load_ahead()
assert load_ahead() is thread
thread.join()
print(before, [name in sys.modules for name in needed])
"""
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env=dict(os.environ) | {"MLFLOW_TRACKING_URI": named},
    )  # fmt: skip
    assert told.stdout.strip() == f"[False, False] [{databases}, True]", told.stderr
