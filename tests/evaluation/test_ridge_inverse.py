"""The inverse behind EASE, with rare items taken out first: the same as the dense one."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from kgrec.evaluation.ridge_inverse import RidgeInverse


def log_of(users: int, items: int, exponent: float, seed: int = 3) -> scipy.sparse.csr_array:
    """Return who had what: a few items that many had, many that few had, some that nobody had."""
    generator = np.random.default_rng(seed)
    chances = 0.6 * np.arange(1, items + 1) ** -exponent
    return scipy.sparse.csr_array((generator.random((users, items)) < chances).astype(np.float64))


def dense(log_UI: scipy.sparse.csr_array, penalty: float) -> np.ndarray:
    inverse_II = np.linalg.inv((log_UI.T @ log_UI).toarray() + penalty * np.eye(log_UI.shape[1]))
    found_II = -inverse_II / inverse_II.diagonal()
    np.fill_diagonal(found_II, 0.0)
    return found_II


@pytest.mark.parametrize("penalty", [0.5, 30.0, 3000.0])
@pytest.mark.parametrize("exponent", [0.0, 0.6, 1.1])
def test_it_is_the_dense_inverse(penalty: float, exponent: float) -> None:
    log_UI = log_of(150, 400, exponent)
    np.testing.assert_allclose(RidgeInverse(log_UI.T @ log_UI).weights(penalty), dense(log_UI, penalty), atol=2e-6)


def test_rare_items_leave_the_core_and_lonely_ones_the_result() -> None:
    log_UI = log_of(300, 2_000, 1.0)
    found = RidgeInverse(log_UI.T @ log_UI)
    gram_II = (log_UI.T @ log_UI).toarray()
    np.fill_diagonal(gram_II, 0.0)
    lonely = gram_II.sum(axis=0) == 0
    assert lonely.sum() > 100 < len(found.aside_S)
    assert len(found.core_C) + len(found.aside_S) == 2_000 - lonely.sum()
    assert len(found.core_C) < 1_000
    assert gram_II[np.ix_(found.aside_S, found.aside_S)].sum() == 0  # no two of them were had together
    weights_II = found.weights(10.0)
    assert not weights_II[lonely].any()
    assert not weights_II[:, lonely].any()


def test_a_log_of_nothing_has_no_weights() -> None:
    nothing = scipy.sparse.csr_array((5, 5))
    assert not RidgeInverse(nothing).weights(1.0).any()


def test_a_penalty_leaves_nothing_behind() -> None:
    log_UI = log_of(80, 200, 0.8)
    found = RidgeInverse(log_UI.T @ log_UI)
    before = found.weights(7.0)
    found.weights(900.0)
    np.testing.assert_array_equal(found.weights(7.0), before)
