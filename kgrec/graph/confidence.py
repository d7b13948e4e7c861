"""How credible a triple is, learned from corrupted ones: does the rest of the graph, and of the log, speak for it?

Axes: T triples, N nodes, D dimensions, F features.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array

Floats = np.ndarray[Any, np.dtype[np.float64]]
Rows = np.ndarray[Any, np.dtype[np.int64]]
_FOLDS: Final = 3
_WIDTH: Final = 32
_STEPS: Final = 25
_RIDGE: Final = 1e-2
_FEATURES: Final = 7


def triple_confidence(
    triples_T3: Rows, num_nodes: int, item_users: csr_array | None, generator: np.random.Generator
) -> Floats:
    """Return the chance (0-1) of each triple to be true rather than corrupted, one a triple.

    triples_T3: head, relation, tail rows of train. item_users: items x users of the train log, items being the first
    nodes; None without a log. In three folds: nodes get vectors from the other folds' triples (truncated SVD of the
    normalised adjacency, and of that adjacency averaged over the log's vectors), so that no triple speaks for itself;
    features of a triple are the cosines of its ends, the degrees, and whether another triple joins both. A logistic
    regression tells the triples from ones whose tail is replaced by another tail of the same relation and fold.
    Corrupted triples that are true by chance make the figures cautious.
    """
    if len(triples_T3) < 10 * _FOLDS:
        return np.ones(len(triples_T3))
    fold_T = generator.permutation(len(triples_T3)) % _FOLDS
    corrupted_T3 = _corrupt(triples_T3, fold_T, generator)
    start = generator.standard_normal((num_nodes, _WIDTH))
    log_ND = _log_vectors(item_users, num_nodes, generator)
    true_TF, false_TF = (np.zeros((len(triples_T3), _FEATURES)) for _ in range(2))
    for fold in range(_FOLDS):
        here = fold_T == fold
        adjacency = _adjacency(triples_T3[~here], num_nodes)
        degree_N = np.asarray(adjacency.sum(axis=1)).ravel()
        scale = diags_array(1 / np.sqrt(np.maximum(degree_N, 1)))
        graph_ND = _leading(csr_array(scale @ adjacency @ scale), start)
        around_ND = adjacency @ log_ND
        for features, rows in ((true_TF, triples_T3), (false_TF, corrupted_T3)):
            features[here] = _features(rows[here], graph_ND, log_ND, around_ND, degree_N, adjacency)
    chance: Floats = _logistic(true_TF, false_TF)
    return chance


def _corrupt(triples_T3: Rows, fold_T: Rows, generator: np.random.Generator) -> Rows:
    """Let the tails of a relation and fold change places: a corrupted triple's tail lacks a triple of its own there,
    too, so that degrees do not tell what was observed from what was made up.
    """
    corrupted_T3 = triples_T3.copy()
    group_T = triples_T3[:, 1] * _FOLDS + fold_T
    order = np.argsort(group_T, kind="stable")
    drawn = np.lexsort((generator.random(len(group_T)), group_T))
    corrupted_T3[order, 2] = triples_T3[drawn, 2]
    return corrupted_T3


def _adjacency(triples_T3: Rows, num_nodes: int) -> csr_array:
    heads, tails = triples_T3[:, 0], triples_T3[:, 2]
    pairs = (np.concatenate([heads, tails]), np.concatenate([tails, heads]))
    matrix = csr_array((np.ones(2 * len(heads)), pairs), shape=(num_nodes, num_nodes))
    matrix.data[:] = 1.0
    return matrix


def _leading(matrix: csr_array, start: Floats) -> Floats:
    """Vectors of the leading eigenspace of a symmetric matrix, by four rounds of subspace iteration."""
    vectors = start
    for _ in range(4):
        vectors = torch.linalg.qr(torch.from_numpy(matrix @ vectors))[0].numpy()
    leading: Floats = matrix @ vectors
    return leading


def _log_vectors(item_users: csr_array | None, num_nodes: int, generator: np.random.Generator) -> Floats:
    """Vectors of the items from who had them, zero for other nodes."""
    log_ND = np.zeros((num_nodes, _WIDTH))
    if item_users is None or not item_users.nnz:
        return log_ND
    scaled = diags_array(1 / np.sqrt(np.maximum(np.asarray(item_users.sum(axis=1)).ravel(), 1))) @ item_users
    start = generator.standard_normal((item_users.shape[0], _WIDTH))
    vectors = torch.linalg.qr(torch.from_numpy(start))[0].numpy()
    for _ in range(4):
        vectors = torch.linalg.qr(torch.from_numpy(scaled @ (scaled.T @ vectors)))[0].numpy()
    log_ND[: item_users.shape[0]] = scaled @ (scaled.T @ vectors)
    return log_ND


def _features(
    rows_T3: Rows, graph_ND: Floats, log_ND: Floats, around_ND: Floats, degree_N: Floats, adjacency: csr_array
) -> Floats:
    heads, tails = rows_T3[:, 0], rows_T3[:, 2]
    return np.stack(
        [
            _cosine(graph_ND[heads], graph_ND[tails]),
            _cosine(log_ND[heads], around_ND[tails]) + _cosine(around_ND[heads], log_ND[tails]),
            _cosine(around_ND[heads], around_ND[tails]),
            np.log1p(degree_N[heads]), np.log1p(degree_N[tails]),
            _cosine(graph_ND[heads], graph_ND[tails]) * np.log1p(np.minimum(degree_N[heads], degree_N[tails])),
            np.asarray(adjacency[heads, tails]).ravel(),
        ], axis=1,
    )  # fmt: skip


def _cosine(left: Floats, right: Floats) -> Floats:
    size = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosine: Floats = (left * right).sum(axis=1) / np.maximum(size, 1e-12)
    return cosine


def _logistic(true_TF: Floats, false_TF: Floats) -> Floats:
    """Fit by Newton's method with a small ridge, and return the chances of the true rows."""
    rows = np.concatenate([true_TF, false_TF])
    mean, spread = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-9)
    design = np.concatenate([np.ones((len(rows), 1)), (rows - mean) / spread], axis=1)
    label = np.concatenate([np.ones(len(true_TF)), np.zeros(len(false_TF))])
    weight = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ weight, -30, 30)))
        slope = design.T @ (label - chance) - _RIDGE * weight
        curve = (design * (chance * (1 - chance))[:, None]).T @ design + _RIDGE * np.eye(len(weight))
        step = np.linalg.solve(curve, slope)
        weight = weight + step
        if np.abs(step).max() < 1e-8:
            break
    final: Floats = 1 / (1 + np.exp(-np.clip(design[: len(true_TF)] @ weight, -30, 30)))
    return final
