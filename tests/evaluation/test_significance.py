"""Intervals and tests against slow oracles, and on planted worlds where nothing, or something, is to be found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgrec.evaluation.classification import auc
from kgrec.evaluation.significance import (
    area_of,
    average_of,
    bootstrap_intervals,
    holm,
    mean_of,
    randomisation_test,
)


def draw(seed=0):
    return np.random.default_rng(seed)


def test_the_test_says_five_percent_of_planted_nulls_are_real():
    generator = draw(1)
    nulls = []
    for _ in range(300):  # two systems that differ by chance alone, on lists that mostly miss, as real ones do
        hits = generator.random((2, 150)) < 0.2
        values = hits * generator.choice([0.3, 0.5, 1.0], (2, 150))
        nulls.append(mean_of(values[0]) - mean_of(values[1]))
    p_values = np.array(randomisation_test(nulls, generator, 999))
    assert 0.03 <= (p_values <= 0.05).mean() <= 0.07
    assert 0.4 < (p_values <= 0.5).mean() < 0.6


def test_the_test_of_areas_says_five_percent_of_planted_nulls_are_real():
    generator = draw(2)
    nulls = []
    unit = np.repeat(np.arange(120), 6)
    for _ in range(300):
        label = generator.random(len(unit)) < 0.4
        of_unit = generator.normal(size=120)[unit]  # rows of a user are alike
        systems = [label + of_unit + generator.normal(size=len(unit)) for _ in range(2)]
        one, other = (area_of(scores, label, unit, 120) for scores in systems)
        nulls.append(one - other)
    p_values = np.array(randomisation_test(nulls, generator, 999))
    assert 0.03 <= (p_values <= 0.05).mean() <= 0.07


def test_a_planted_difference_is_found_and_a_smaller_sample_does_not_find_it():
    generator = draw(3)
    better, worse = generator.random(2000) < 0.30, generator.random(2000) < 0.25
    p_many = randomisation_test([mean_of(better) - mean_of(worse)], generator, 999)[0]
    p_few = randomisation_test([mean_of(better[:60]) - mean_of(worse[:60])], generator, 999)[0]
    assert p_many < 0.01
    assert p_few > 0.05


def test_p_is_that_of_all_sign_flips():
    generator = draw(4)
    one, other = generator.random(9), generator.random(9) * 0.7
    shares = one - other
    flips = [abs(np.dot(signs, shares)) for signs in itertools.product((1, -1), repeat=9)]
    exact = np.mean(np.array(flips) >= abs(shares.sum()) - 1e-12)
    p = randomisation_test([mean_of(one) - mean_of(other)], generator, 20_000)[0]
    assert p == pytest.approx(exact, abs=0.01)


def test_p_does_not_depend_on_what_else_is_tested_nor_on_chunks(monkeypatch):
    generator = draw(5)
    differences = [mean_of(generator.random(64)) - mean_of(generator.random(64)) for _ in range(3)]
    together = randomisation_test(differences, draw(6), 400)
    assert randomisation_test(differences[1:2], draw(6), 400) == together[1:2]
    monkeypatch.setattr("kgrec.evaluation.significance._CHUNK_NUMBERS", 8 * 64)  # whole bytes of signs a chunk
    assert randomisation_test(differences, draw(6), 400) == together


def test_equal_figures_are_never_told_apart():
    values = draw(7).random(50)
    assert randomisation_test([mean_of(values) - mean_of(values)], draw(), 99) == [1.0]
    with pytest.raises(ValueError, match="50 and 49 units"):
        mean_of(values) - mean_of(values[1:])


def test_an_interval_of_a_mean_is_that_of_the_bootstrap():
    values = draw(8).exponential(size=300)
    low, high = bootstrap_intervals([mean_of(values)], draw(9), 4000)[0]
    drawn = draw(10).integers(0, 300, (4000, 300))
    assert [low, high] == pytest.approx(np.quantile(values[drawn].mean(axis=1), [0.025, 0.975]), abs=0.015)
    assert low < values.mean() < high


def test_intervals_hold_the_truth_as_often_as_they_say():
    generator = draw(11)
    held = 0
    for _ in range(200):
        low, high = bootstrap_intervals([mean_of(generator.random(80))], generator, 400)[0]
        held += low <= 0.5 <= high
    assert 0.9 <= held / 200 <= 0.985


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30))
def test_an_area_and_its_influence_are_those_of_the_definition(rows):
    scores, labels, units = (np.array(column) for column in zip(*rows, strict=True))
    found = area_of(scores, labels, units, 4)
    if labels.all() or not labels.any():
        assert found is None
        return
    pairs = [
        (p, n, 1.0 if scores[p] > scores[n] else 0.5 if scores[p] == scores[n] else 0.0)
        for p in np.flatnonzero(labels)
        for n in np.flatnonzero(~labels)
    ]
    assert found.value == pytest.approx(np.mean([won for *_, won in pairs]))
    for unit in range(4):
        by_row = (
            sum(
                np.mean([won for pair in pairs if row in pair[:2] for won in pair[2:]]) - found.value
                for row in np.flatnonzero((units == unit) & labels)
            )
            / labels.sum()
            + sum(
                np.mean([won for pair in pairs if row in pair[:2] for won in pair[2:]]) - found.value
                for row in np.flatnonzero((units == unit) & ~labels)
            )
            / (~labels).sum()
        )
        assert found.influence_U[unit] == pytest.approx(by_row, abs=1e-12)


def test_an_areas_interval_is_that_of_drawing_users():
    generator = draw(12)
    unit = np.repeat(np.arange(80), 5)
    label = generator.random(len(unit)) < 0.4
    scores = label + generator.normal(size=80)[unit] + generator.normal(size=len(unit))
    low, high = bootstrap_intervals([area_of(scores, label, unit, 80)], generator, 3000)[0]
    areas = []
    for _ in range(1000):
        rows = (generator.integers(0, 80, 80)[:, None] * 5 + np.arange(5)).ravel()
        areas.append(auc(scores[rows], label[rows]))
    assert [low, high] == pytest.approx(np.quantile(areas, [0.025, 0.975]), abs=0.012)


def test_the_average_over_seeds_is_the_figure_of_the_average():
    values = draw(13).random((3, 20))
    found = average_of([mean_of(row) for row in values])
    expected = mean_of(values.mean(axis=0))
    assert found.value == pytest.approx(expected.value)
    assert found.influence_U == pytest.approx(expected.influence_U)
    with pytest.raises(ValueError, match="different units"):
        average_of([mean_of([1.0]), mean_of([1.0, 2.0])])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values):
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for done, place in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
            if p_values[place] * (len(p_values) - done) > level:
                break
            rejected.add(place)
        assert {at for at, p in enumerate(holm(p_values)) if p <= level} == rejected
