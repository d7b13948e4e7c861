"""Probability metrics against scikit-learn and plain Python."""

import math

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.evaluation.classification import (
    NUM_BINS,
    auc,
    classification_metrics,
    funnel_metrics,
    grouped_auc,
    reliability_table,
)

ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 1 / 15, 0.2, 0.5, 14 / 15, 1.0]) | st.floats(0, 1), st.integers(0, 1)), min_size=1
)


def slow_ece(probabilities, labels):
    edges = [b / NUM_BINS for b in range(NUM_BINS + 1)]
    total = 0.0
    for b in range(NUM_BINS):
        inside = [
            (p, y)
            for p, y in zip(probabilities, labels, strict=True)
            if edges[b] <= p < edges[b + 1] or (b == NUM_BINS - 1 and p == 1.0)
        ]
        if inside:
            total += abs(sum(p for p, _ in inside) - sum(y for _, y in inside))
    return total / len(labels)


@given(ROWS)
@settings(max_examples=1000, deadline=None)
def test_equal_to_scikit_learn(rows):
    probabilities, labels = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    ours = classification_metrics(probabilities, labels)
    brier = sklearn.metrics.brier_score_loss(labels, probabilities, pos_label=1)
    assert ours["brier"] == pytest.approx(brier, abs=1e-9)
    assert ours["brier"] == pytest.approx(np.mean((probabilities - labels) ** 2), abs=1e-12)
    inside = [p * NUM_BINS % 1 > 1e-6 for p in probabilities]  # at an edge scikit-learn counts downwards, kgrec upwards
    table = reliability_table(probabilities[inside], labels[inside])
    curve = ((), ())
    if any(inside):
        curve = sklearn.calibration.calibration_curve(labels[inside], probabilities[inside], n_bins=NUM_BINS)
    for name, values in zip(("observed", "predicted"), curve, strict=True):
        assert [line[name] for line in table] == pytest.approx(list(values), abs=1e-9)
    assert ours["log_loss"] == pytest.approx(sklearn.metrics.log_loss(labels, probabilities, labels=[0, 1]), abs=1e-9)
    assert (ours["num_rows"], ours["positive_rate"]) == (len(labels), labels.mean())
    if len(set(labels)) == 2:
        assert ours["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(labels, probabilities), abs=1e-9)
    else:
        assert "auc" not in ours


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5]) | st.floats(0, 1), st.integers(0, 1), st.integers(-1, 3))))
@settings(max_examples=1000, deadline=None)
def test_auc_within_groups_equals_scikit_learn_group_by_group(rows):
    by_group = {group: [row for row in rows if row[2] == group] for group in range(4)}
    mixed = [own for own in by_group.values() if len({label for _, label, _ in own}) == 2]
    scores, labels, groups = zip(*rows, strict=True) if rows else ((), (), ())
    ours = grouped_auc(scores, labels, groups)
    if not mixed:
        assert ours == {}
        return
    areas = [sklearn.metrics.roc_auc_score([y for _, y, _ in own], [s for s, _, _ in own]) for own in mixed]
    assert ours["gauc"] == pytest.approx(np.average(areas, weights=[len(own) for own in mixed]), abs=1e-9)
    assert ours["gauc_groups"] == len(mixed)


@given(st.lists(st.tuples(st.integers(0, 30).map(lambda n: n / 31), st.integers(0, 1)), min_size=1))
@settings(max_examples=1000, deadline=None)
def test_calibration_error_equals_a_loop_over_the_bins(rows):
    probabilities, labels = zip(*rows, strict=True)
    assert classification_metrics(probabilities, labels)["ece"] == pytest.approx(
        slow_ece(probabilities, labels), abs=1e-12
    )


def test_perfect_calibration_and_the_worst():
    assert classification_metrics([0.5, 0.5], [0, 1])["ece"] == 0.0
    assert classification_metrics([1.0, 1.0], [0, 0])["ece"] == 1.0


def test_what_does_not_apply_is_absent():
    assert classification_metrics([], []) == {"num_rows": 0}
    assert "auc" not in classification_metrics([0.1, 0.9], [1, 1])
    assert auc([3.0, 3.0], [0, 1]) == 0.5
    assert auc([math.inf, -5.0], [1, 0]) == 1.0


def test_conversion_on_clicked_rows_and_both_on_all():
    result = funnel_metrics([0.5, 0.8, 0.4], [0.5, 0.9, 0.25], [1, 1, 0], [0, 1, 1])
    assert [result[name]["num_rows"] for name in ("click", "conversion", "click_and_conversion")] == [3, 2, 3]
    assert result["conversion"] == classification_metrics([0.5, 0.9], [0, 1])
    assert result["click_and_conversion"] == classification_metrics([0.25, 0.8 * 0.9, 0.1], [0, 1, 0])


def test_reliability_lists_filled_bins():
    table = reliability_table([0.0, 0.01, 1.0], [0, 1, 1])
    assert [(line["num_rows"], line["observed"]) for line in table] == [(2, 0.5), (1, 1.0)]
    assert table[-1]["to"] == 1.0


@pytest.mark.parametrize(
    ("probabilities", "labels", "word"),
    [
        ([math.nan], [1], "NaN"),
        ([1.5], [1], "probabilities"),
        ([0.5], [2], "labels"),
        ([0.5], [1, 0], "shapes"),
        ([0.5], [math.nan], "labels"),
    ],
)
def test_bad_input_is_refused(probabilities, labels, word):
    with pytest.raises(ValueError, match=word):
        classification_metrics(probabilities, labels)
