from __future__ import annotations

import numpy as np
import pytest

from kgrec.chain.importance import shown
from kgrec.evaluation.classification import auc
from kgrec.evaluation.importance import (
    Columns,
    columns_by_feature,
    mean_importance,
    permutation_importance,
    telling_columns,
)

ROWS = 4000


@pytest.fixture
def planted():
    """A label made by one strong and one weak number and a category; a column that nobody reads; one that misleads."""
    draw = np.random.default_rng(1)
    numeric_NF = draw.standard_normal((ROWS, 4)).astype(np.float32)
    categorical_NC = draw.integers(0, 2, (ROWS, 1))
    chance_N = 1 / (1 + np.exp(-(2 * numeric_NF[:, 0] + 0.5 * numeric_NF[:, 1] + categorical_NC[:, 0])))
    return numeric_NF, categorical_NC, draw.random(ROWS) < chance_N


def judged(label_N):
    def figures(numeric_NF, categorical_NC):
        score_N = 2 * numeric_NF[:, 0] + 0.5 * numeric_NF[:, 1] + categorical_NC[:, 0] - 0.4 * numeric_NF[:, 3] ** 2
        return {"click": auc(score_N, label_N)}

    return figures


def test_importance_orders_what_was_planted(planted):
    numeric_NF, categorical_NC, label_N = planted
    features = columns_by_feature(["strong", "weak", "unread", "noise"], ["kind"])
    found = permutation_importance(judged(label_N), *planted[:2], features, np.random.default_rng(2))
    means = mean_importance(found)
    assert next(iter(means)) == "strong"
    assert means["strong"] > 0.2 > means["weak"] > 0.005
    assert means["unread"] == 0
    assert abs(means["noise"]) < 0.02
    again = permutation_importance(judged(label_N), numeric_NF, categorical_NC, features, np.random.default_rng(2))
    assert again == found


def test_columns_of_a_feature_move_together(planted):
    numeric_NF, categorical_NC, _ = planted
    twin_NF = np.repeat(numeric_NF[:, :1], 2, axis=1)
    seen = []

    def same(numbers, codes):
        seen.append((numbers[:, 0] == numbers[:, 1]).all())
        return {"x": 0.0}

    permutation_importance(same, twin_NF, categorical_NC, {"pair": Columns((0, 1), ())}, np.random.default_rng(0))
    assert seen == [True, True]
    assert columns_by_feature(["a", "a:missing", "l=x", "l=y"], ["k"]) == {
        "a": Columns((0, 1), ()), "l": Columns((2, 3), ()), "k": Columns((), (0,)),
    }  # fmt: skip


def test_a_column_that_knows_the_label_is_named(planted):
    numeric_NF, _, label_N = planted
    leaky_NF = np.column_stack([numeric_NF[:, 0], -label_N.astype(np.float32)])
    found = telling_columns(leaky_NF, ["honest", "leak"], {"click": label_N})
    assert found == {"leak": 1.0}
    card, warnings = shown({"auc_falls": {"honest": {"click": 0.2}, "bad": {"click": -0.01}}, "tells_all": found})
    assert "honest 0.2000" in next(iter(card.values()))
    assert card["hurting on validation"] == "bad -0.0100"
    assert "leak" in warnings[0]
    assert shown({}) == ({}, [])
