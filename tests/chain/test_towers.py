"""Gates, transfer, cross-and-compress and calibration through the whole chain: trained, judged, reported and served."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch

import kgrec
from kgrec.artifacts import Artifact, load_artifact
from kgrec.chain.learn import load_network
from tests import worlds

OVERRIDES = [
    "model.towers.sharing=ple", "model.towers.feature_gates=true", "model.towers.cross_compress=1",
    "losses.conversion=aitm", "evaluation.calibration=platt", "training.epochs=2", "training.evaluate_every=1",
    "split.validation=0.3",
]  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("towers")
    kgrec.run(worlds.impressions_world(folder), folder / "workspace", overrides=OVERRIDES)
    return folder / "workspace"


def trained_artifact(workspace: Path) -> Artifact:
    (folder,) = (workspace / "artifacts" / "train").iterdir()
    return load_artifact(folder)


def test_the_facts_name_the_calibration_and_every_gate(workspace: Path) -> None:
    facts = trained_artifact(workspace).facts
    assert set(facts["calibration"]) == {"click", "conversion"}
    assert set(facts["calibration"]["click"]) == {"slope", "intercept", "ece_before", "ece_after"}
    assert facts["calibration"]["click"]["slope"] != 1
    for gates in facts["feature_gates"].values():
        assert "item vector" in gates
        assert "hour" in gates
        assert all(0 < gate < 1 for gate in gates.values())
    (report,) = workspace.glob("reports/*/report.html")
    text = report.read_text()
    assert "Feature gates of conversion" in text
    assert "Calibration of click on validation" in text


def test_what_is_served_is_calibrated_and_reads_the_same_towers(workspace: Path) -> None:
    trained = trained_artifact(workspace)
    network, _ = load_network(trained)
    assert network.towers is not None
    slopes = {head: fitted["slope"] for head, fitted in trained.facts["calibration"].items()}
    assert network.towers.slope_T.tolist() == pytest.approx([slopes["click"], slopes["conversion"]], rel=1e-6)
    version = kgrec.load(workspace)
    item = pl.read_parquet(next(workspace.glob("artifacts/split/*/catalogue.parquet")))["item"][0]
    config = json.loads(next(workspace.glob("artifacts/features/*/encoder.json")).read_text())
    asked = pl.DataFrame(
        {"user": ["u1", "nobody"], "item": [item, item]} | {name: ["1", "1"] for name in config["context"]}
    )
    before = version.score(asked)
    towers = version._towers._towers
    with torch.no_grad():
        towers.intercept_T.add_(1.0)
    after = version.score(asked)
    assert (after["click"] > before["click"]).all()
    assert (after["conversion"] > before["conversion"]).all()
    assert before["both"].to_list() == pytest.approx((before["click"] * before["conversion"]).to_list(), rel=1e-5)
