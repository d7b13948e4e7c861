"""Towers beside the other tasks and alone: which validation keeps, and that it is what is stored."""

from __future__ import annotations

import pytest

from feature_store.catalog import VIEWS
from kgrec.artifacts import load_artifact
from kgrec.chain.context import Run
from kgrec.chain.learn import load_network
from kgrec.config import load_config
from kgrec.model.towers import Reads
from kgrec.stages import RunResult, run, run_chain
from kgrec.workspace import Workspace
from tests import worlds


def trained(result: RunResult):
    (folder,) = (result.workspace / "artifacts" / "train").iterdir()
    return load_artifact(folder, "train")


def test_the_better_of_both_on_validation_is_stored(tiny: RunResult) -> None:
    artifact = trained(tiny)
    told = artifact.facts["towers"]
    network, _ = load_network(artifact)
    alone = told["alone_auc"] > told["joint_auc"]
    assert told["kept"] == ("alone" if alone else "joint")
    assert (network.config.towers.reads is Reads.NOTHING) is alone
    kept = max(told["alone_auc"], told["joint_auc"])
    assert tiny.metrics["validation"]["conversion"]["auc"] == pytest.approx(kept, abs=1e-9)
    assert not list((tiny.workspace / "checkpoints").iterdir())


def test_the_towers_are_left_as_they_are_when_switched_off(tmp_path) -> None:
    short = ["training.epochs=2", "training.evaluate_every=1"]
    off = run(worlds.TINY, tmp_path / "off", views=VIEWS, overrides=[*short, "training.towers_alone=false"])
    assert trained(off).facts["towers"] == {}
    nothing = run(worlds.TINY, tmp_path / "n", views=VIEWS, overrides=[*short, 'model.towers.reads="nothing"'])
    assert trained(nothing).facts["towers"] == {}


def test_towers_alone_train_beside_sampled_propagation(tmp_path) -> None:
    changes = ["training.epochs=2", "training.evaluate_every=1", "model.propagation=sampled"]
    learned = run_chain(Run(load_config(worlds.TINY, changes), Workspace(tmp_path), VIEWS), until="train")
    told = learned.facts["towers"]
    assert told["kept"] in ("alone", "joint")
    assert told["alone_auc"] > 0.5
