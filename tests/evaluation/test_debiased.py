"""Debiased figures against a world in which every choice is known and the log saw some of them."""

import numpy as np
import pytest
import torch

from kgrec.evaluation.debiased import debiased_metrics, propensities
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.ranking import ranking_metrics


def test_weights_give_back_what_the_log_did_not_see():
    """Popular items are seen always, rare ones one time in five; lists hold the popular ones, or the rare ones."""
    generator = np.random.default_rng(3)
    users, items = 4_000, 10
    chance_I = np.where(np.arange(items) < 5, 1.0, 0.2)
    chosen = generator.random((users, items)) < 0.4
    seen = chosen & (generator.random((users, items)) < chance_I)
    seen[:, 0] |= ~seen.any(axis=1)  # everybody is judged
    chosen |= seen
    truth = Pairs.of(*np.nonzero(seen), users, items)
    for first in (0, 5):
        top = torch.arange(first, first + 5).expand(users, -1)
        debiased = debiased_metrics(top, truth, 5, torch.tensor(chance_I))
        expected = chosen[:, first : first + 5].sum() / chosen.sum()
        assert debiased["snips_recall@5"] == pytest.approx(expected, abs=0.02)
        assert debiased["ips_hits@5"] == pytest.approx(chosen[:, first : first + 5].sum() / users, rel=0.06)
        naive = ranking_metrics(top, truth, [5])["precision@5"] * 5
        assert (abs(naive - chosen[:, first : first + 5].sum() / users) > 1.0) == (first == 5)


def test_equal_propensities_leave_the_pooled_figures():
    truth = Pairs.of([0, 0, 1], [0, 3, 2], 2, 4)
    top = torch.tensor([[3, 1], [2, -1]])
    found = debiased_metrics(top, truth, 2, torch.ones(4).double())
    assert found == {"ips_hits@2": 1.0, "snips_recall@2": 2 / 3, "snips_dcg@2": 2 / 3, "effective_size": 3.0}
    cut = debiased_metrics(torch.tensor([[1, 3], [0, 2]]), truth, 1, torch.ones(4).double())
    assert cut["ips_hits@1"] == 0.0


def test_propensities_follow_power_and_floor():
    counts = torch.tensor([100, 25, 1, 0])
    assert propensities(counts, 0.5, 0.05).tolist() == pytest.approx([1.0, 0.5, 0.1, 0.05])
    assert propensities(counts, 0.0, 0.05)[:3].tolist() == [1.0, 1.0, 1.0]
    assert propensities(counts, 1.0, 0.3).tolist() == pytest.approx([1.0, 0.3, 0.3, 0.3])


def test_without_anything_relevant_there_is_no_figure():
    assert debiased_metrics(torch.tensor([[0]]), Pairs.empty(1, 2), 1, torch.ones(2).double()) == {}
