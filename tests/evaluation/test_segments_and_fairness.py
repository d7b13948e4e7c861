"""Segments and gaps on planted worlds whose answer is known."""

import numpy as np
import pytest
import scipy.sparse
import torch

from kgrec.evaluation.fairness import group_gap, group_gaps, provider_exposure
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.segments import by_history, by_value, segment_lines, tail_items


def test_users_are_split_by_what_was_known_of_them():
    assert by_history([0, 1, 3, 4], 3) == ["no history", "1 to 3 items", "1 to 3 items", "4 items or more"]


def test_columns_become_few_groups():
    assert by_value(["m", "f", None]) == ["m", "f", "unknown"]
    ages = by_value([str(age) for age in range(1, 101)] + [None])
    assert ages[0] == "1 to 25"
    assert ages[-2:] == ["above 75 to 100", "unknown"]
    assert [ages.count(name) for name in dict.fromkeys(ages)] == [25, 25, 25, 25, 1]
    jobs = by_value([*"aaabbbccdde", "f", "g", "h"])
    assert set(jobs) == {"a", "b", "c", "d", "e", "others"}
    assert by_value([5, 5, 5, 5, 5, 5, 5, 1, 2, 3, 4, 6, 7])[0] == "above 4 to 5"


def test_the_tail_is_the_least_popular_share_of_the_catalogue():
    mask = tail_items(torch.tensor([9, 1, 1, 5, 0]), torch.tensor([True, True, True, True, False]), 0.5)
    assert mask.tolist() == [False, True, True, False, False]
    assert int(tail_items(torch.zeros(4), torch.ones(4, dtype=torch.bool), 0.25).sum()) == 1


def test_lines_hold_the_means_of_each_group_and_an_interval_around_the_own():
    generator = np.random.default_rng(1)
    labels = ["a"] * 200 + ["b"] * 50 + ["c"]
    own = np.concatenate([generator.normal(1, 0.1, 200), generator.normal(2, 0.1, 50), [7.0]])
    lines = segment_lines("taste", labels, {"model": {"m": own}, "other": {"m": own - 1}}, "model", generator)
    assert [(line["group"], line["num_users"]) for line in lines] == [("a", 200), ("b", 50), ("c", 1)]
    low, high = lines[0]["intervals"]["m"]
    assert low < lines[0]["figures"]["model"]["m"] < high
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(200), rel=0.3)
    assert lines[1]["figures"]["other"]["m"] == pytest.approx(lines[1]["figures"]["model"]["m"] - 1)
    assert "intervals" not in lines[2]


def test_a_planted_gap_is_found_and_luck_is_called_so():
    generator = np.random.default_rng(2)
    labels = ["f", "m"] * 150
    luck = generator.random(300)
    gaps = group_gaps(luck + np.where(np.array(labels) == "f", 0.0, 0.3), {"gender": labels}, generator)
    assert gaps["gender"]["lowest"]["group"] == "f"
    assert gaps["gender"]["gap"] == pytest.approx(0.3, abs=0.1)
    assert not gaps["gender"]["noise"]
    lucky = group_gaps(luck, {"gender": labels, "half": ["x"] * 150 + ["y"] * 150}, generator)
    assert all(gap["noise"] for gap in lucky.values())


def test_chance_is_that_of_all_relabellings():
    values, labels = np.array([0.0] * 10 + [1.0] * 10), ["a"] * 10 + ["b"] * 10
    assert group_gap(values, labels, np.random.default_rng(0))["p"] <= 0.002
    assert group_gap(np.ones(20), labels, np.random.default_rng(0))["p"] == 1.0
    assert group_gap(values[:15], labels[:15], np.random.default_rng(0)) is None, "five users are no group"


def test_exposure_of_providers_against_catalogue_and_relevance():
    """Two providers with two items each; all lists show the first's items, the truth asks for both alike."""
    providers = scipy.sparse.csr_array(np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]]))
    truth = Pairs.of([0, 1], [0, 2], 2, 4)
    everything = torch.ones(4, dtype=torch.bool)
    figures, shares = provider_exposure(torch.tensor([[0, 1], [1, 0]]), truth, providers, everything)
    assert figures == {"exposure_gini": 0.5, "num_providers": 2, "exposure_against_catalogue": 0.5,
                       "exposure_against_relevance": 0.5}  # fmt: skip
    assert shares["exposure"].tolist() == [1.0, 0.0]
    fair = provider_exposure(torch.tensor([[0, 2], [2, 0]]), truth, providers, everything)[0]
    assert (fair["exposure_gini"], fair["exposure_against_relevance"]) == (0.0, 0.0)
    first = provider_exposure(torch.tensor([[0, 2]]), Pairs.of([0], [0], 1, 4), providers, everything)[1]
    assert first["exposure"].tolist() == pytest.approx([1 / (1 + 1 / np.log2(3)), 1 - 1 / (1 + 1 / np.log2(3))])
    nobody = scipy.sparse.csr_array((4, 2))
    assert provider_exposure(torch.tensor([[0, 2]]), truth.take(torch.tensor([0])), nobody, everything) == ({}, {})
