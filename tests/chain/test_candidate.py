"""The gate's policy in a run: what it looks at, that it refuses, and that its content is part of the run's key."""

from __future__ import annotations

import re

import numpy as np
import pytest

from kgrec.artifacts import ArtifactStore
from kgrec.chain.candidate import gate_rules, index_recall
from kgrec.chain.context import Run
from kgrec.config import load_config
from kgrec.serving.recommend import Version
from kgrec.serving.versions import read_registry
from kgrec.stages import run
from kgrec.workspace import Workspace
from tests import worlds
from tests.serving.small_version import make_version


def configured(folder, rules):
    """Return the tiny config with a policy beside it."""
    text = worlds.TINY.read_text().replace('"tiny/', f'"{worlds.TINY.parent}/tiny/')
    (folder / "policy.toml").write_text(rules)
    path = folder / "tiny.toml"
    path.write_text(text + '\n[gate]\npolicy = "policy.toml"\n')
    return path


def test_a_policy_judges_a_run_and_its_refusal_says_why(tiny_copy, tmp_path):
    asked = '[paired]\nbaselines = "better"\nrounds = 499\n[segments]\nleast_users = 5\n[index]\nleast_recall = 1.0\n'
    asked += "[calibration]\nlargest_ece = 0.000001\n[answers]\nlargest_mb = 0.001\nlargest_p99_ms = 100000\n"
    result = run(configured(tmp_path, asked), tiny_copy, overrides=["training.epochs=8"])
    verdict = result.released.verdict
    assert not verdict.passed
    assert not result.released.promoted
    assert read_registry(Workspace(tiny_copy)).promoted == "1", "what was served is served on"
    text = "\n".join(verdict.reasons)
    assert "against popularity, significant" in text
    assert "against the promoted version" in text
    assert "the index finds 1.0000 of the exact top items" in text
    assert "FAILED: calibration error of conversion" in text
    assert "FAILED: a version of" in text
    assert " MB, at most 0.0" in text
    assert "ms at the 99th percentile, at most 100000.0" in text
    assert "of the promoted version for" in text
    others_named = re.compile("against|of the promoted version")  # these may go either way
    told = [reason for reason in verdict.failures if not others_named.search(reason)]
    assert all("cali" in reason or "MB" in reason for reason in told), told


def test_the_content_of_the_policy_is_part_of_the_rules(tmp_path):
    found = []
    for loss in (0.1, 0.2):
        path = configured(tmp_path, f"[segments]\nlargest_loss = {loss}\n")
        found.append(gate_rules(Run(load_config(path), Workspace(tmp_path / "w"))))
    assert found[0] != found[1]
    assert found[0]["policy"]["segments"]["largest_loss"] == 0.1
    assert "policy" not in gate_rules(Run(load_config(worlds.TINY), Workspace(tmp_path / "w")))


def test_an_index_that_misses_items_is_measured_as_such(tmp_path, monkeypatch):
    version = Version(make_version(ArtifactStore(tmp_path)))
    assert index_recall(version, k=3) == 1.0
    whole = Version.top
    monkeypatch.setattr(Version, "top", lambda self, asked, k: tuple(part[1:] for part in whole(self, asked, k)))
    assert index_recall(version, k=3) == pytest.approx(np.mean([2 / 3] * 3))
