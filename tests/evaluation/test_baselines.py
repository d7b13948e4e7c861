"""The baselines' formulas against dense NumPy."""

import numpy as np
import pytest
import torch

from kgrec.evaluation.baselines import BaselinesConfig, LeftOutError, Setting, climb, fit, tune
from kgrec.evaluation.pairs import Pairs


@pytest.fixture(scope="module")
def train():
    generator = torch.Generator().manual_seed(5)
    mask = torch.rand(30, 12, generator=generator) < 0.35
    mask[:, 11] = False  # an item nobody had
    users, items = mask.nonzero(as_tuple=True)
    return Pairs.of(users, items, 30, 12)


def dense(pairs):
    matrix = np.zeros((pairs.num_rows, pairs.num_columns))
    matrix[pairs.rows().numpy(), pairs.indices.numpy()] = 1
    return matrix


def test_popularity_counts_users(train):
    assert fit("popularity", train, {})(train)[3].tolist() == dense(train).sum(axis=0).tolist()


def test_ease_is_the_closed_form(train):
    matrix = dense(train)
    inverse = np.linalg.inv(matrix.T @ matrix + 7.0 * np.eye(12))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    np.testing.assert_allclose(fit("ease", train, {"lambda": 7.0})(train).numpy(), matrix @ weights, atol=1e-6)


@pytest.mark.parametrize(("neighbours", "shrinkage"), [(1, 0.0), (3, 2.0), (50, 0.0)])
def test_item_knn_keeps_each_items_nearest(train, neighbours, shrinkage):
    matrix = dense(train)
    together, users = matrix.T @ matrix, matrix.sum(axis=0)
    similarity = np.where(together > 0, together / (np.sqrt(np.outer(users, users)) + shrinkage + 1e-300), 0.0)
    np.fill_diagonal(similarity, 0.0)
    for column in range(12):
        order = sorted(range(12), key=lambda row: (-similarity[row, column], row))
        similarity[order[neighbours:], column] = 0.0
    scores = fit("item_knn", train, {"neighbours": neighbours, "shrinkage": shrinkage})(train)
    np.testing.assert_allclose(scores.numpy(), matrix @ similarity, atol=1e-6)


def test_linear_filter_is_its_formula(train):
    matrix = dense(train)
    users, items = matrix.sum(axis=1).clip(1), matrix.sum(axis=0).clip(1)
    weights = np.diag(items**-0.2) @ matrix.T @ np.diag(users**-0.5) @ matrix @ np.diag(items**-0.4)
    np.fill_diagonal(weights, 0.0)
    scores = fit("linear_filter", train, {"user": 0.5, "history_item": 0.2, "item": 0.4})(train)
    np.testing.assert_allclose(scores.numpy(), matrix @ weights, atol=1e-5)


def test_ease_says_why_it_is_left_out_of_a_large_catalogue(train):
    with pytest.raises(LeftOutError, match="12 items would take"):
        tune("ease", train, train, Pairs.empty(30, 12), config=BaselinesConfig(ease_max_items=11))


def test_every_setting_is_tried_in_the_configs_order(train):
    config = BaselinesConfig(neighbours=(3, 4), shrinkage=(1.0,), ease_lambda=(2.0,), filter_exponents=(0.1,))
    seen = Pairs.empty(30, 12)
    tried = {
        name: tune(name, train, train, seen, config=config).tried for name in ("item_knn", "ease", "linear_filter")
    }
    assert [line["setting"]["neighbours"] for line in tried["item_knn"]] == [3, 4]
    assert {line["setting"]["shrinkage"] for line in tried["item_knn"]} == {1.0}
    assert [line["setting"] for line in tried["ease"]] == [{"lambda": 2.0}]
    assert [line["setting"] for line in tried["linear_filter"]] == [{"user": 0.1, "history_item": 0.1, "item": 0.1}]


def testclimbing_finds_the_best_of_a_grid_with_one_hill_and_tries_less_than_all() -> None:
    settings = [{"a": float(a), "b": float(b)} for a in range(7) for b in range(5)]
    asked: list[Setting] = []

    def quality(setting: Setting) -> float:
        asked.append(setting)
        return -((setting["a"] - 5) ** 2) - (setting["b"] - 1) ** 2

    assert climb(settings, quality) == {"a": 5.0, "b": 1.0}
    assert len({tuple(setting.values()) for setting in asked}) < len(settings) / 2
