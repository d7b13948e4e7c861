"""Fidelity: what a reason names carries the score, and a reason that names something else is found out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse

from kgrec.artifacts import ArtifactStore
from kgrec.model.blocks import BlockWeights
from kgrec.serving.fidelity import Fidelity, history_fidelity, probes, reason_variety
from kgrec.serving.neighbours import Neighbours
from kgrec.serving.recommend import Version
from tests.serving.small_version import make_version

SIZE = 7


@pytest.fixture
def version(tmp_path):
    """ann had a, b, c and d; of those b alone leads to e (through the neighbours)."""
    made = Version(make_version(ArtifactStore(tmp_path)), "1")
    made._item_fold_ID[:] = [0.1, 0.1, 0.1]
    planted = np.zeros((SIZE, SIZE), dtype=np.float32)
    planted[1, 4] = 1.0
    made.neighbours = Neighbours({"linear": scipy.sparse.csr_array(planted)}, BlockWeights(linear=5.0), SIZE)
    made._history_items = np.array([0, 1, 2, 3, 3, 4, 6])
    made._history_seen = np.ones(7, dtype=bool)
    made._history_offsets = np.array([0, 4, 5, 6, 6, 7])
    return made


def test_without_the_item_that_carries_it_the_score_falls_and_without_another_it_does_not(version):
    (probe,) = probes(version, ["ann", "bob", "nobody"])
    assert (probe.user, probe.found.item_row) == ("ann", 4)
    assert next(iter(probe.found.history)) == 1
    found = history_fidelity(version, [probe] * 12, np.random.default_rng(1))
    np.testing.assert_allclose(found.named_P, 5.0, atol=1e-5)
    np.testing.assert_allclose(found.random_P, 0.0, atol=1e-5)
    facts = found.facts(np.random.default_rng(1))
    assert facts["named_falls_further"] == 1.0
    assert facts["p"] < 0.01


def test_an_explanation_that_names_the_wrong_item_has_no_fidelity(version):
    (probe,) = probes(version, ["ann"])
    wrong = replace(probe, found=replace(probe.found, history={0: 1.0, 1: 0.0, 2: 0.0, 3: 0.0}))
    facts = history_fidelity(version, [wrong] * 60, np.random.default_rng(2)).facts(np.random.default_rng(2))
    assert facts["fall_without_the_named"] == pytest.approx(0.0, abs=1e-5)
    assert facts["fall_without_a_random_one"] > 1.0
    assert facts["named_falls_further"] < 0.5


def test_without_probes_there_is_no_figure():
    nothing = Fidelity(np.empty(0), np.empty(0))
    assert nothing.facts(np.random.default_rng(0)) == {"probes": 0}


def test_variety_is_the_share_of_distinct_reasons(version):
    variety = reason_variety(version, ["bob", "nobody"], k=3)
    listed = version.recommend(["bob"], k=3, explain=True)["reason"]
    assert variety["distinct_reasons"] == pytest.approx(listed.n_unique() / len(listed), abs=1e-4)
    assert reason_variety(version, ["nobody"]) == {}
