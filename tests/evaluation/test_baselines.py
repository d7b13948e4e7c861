"""The baselines' formulas against dense NumPy."""

import numpy as np
import pytest
import torch

from kgrec.evaluation.baseline_roles import BaselinesConfig, Known, LeftOutError, Setting
from kgrec.evaluation.baselines import Earlier, climb, fit, recent_counts, tune
from kgrec.evaluation.graph_kernel import incidence
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
    assert (
        fit("popularity", Known(train), {"half_life_days": 0.0})(train)[3].tolist() == dense(train).sum(axis=0).tolist()
    )


def test_ease_is_the_closed_form(train):
    matrix = dense(train)
    inverse = np.linalg.inv(matrix.T @ matrix + 7.0 * np.eye(12))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    np.testing.assert_allclose(fit("ease", Known(train), {"lambda": 7.0})(train).numpy(), matrix @ weights, atol=1e-6)


@pytest.mark.parametrize(("neighbours", "shrinkage"), [(1, 0.0), (3, 2.0), (50, 0.0)])
def test_item_knn_keeps_each_items_nearest(train, neighbours, shrinkage):
    matrix = dense(train)
    together, users = matrix.T @ matrix, matrix.sum(axis=0)
    similarity = np.where(together > 0, together / (np.sqrt(np.outer(users, users)) + shrinkage + 1e-300), 0.0)
    np.fill_diagonal(similarity, 0.0)
    for column in range(12):
        order = sorted(range(12), key=lambda row: (-similarity[row, column], row))
        similarity[order[neighbours:], column] = 0.0
    scores = fit("item_knn", Known(train), {"neighbours": neighbours, "shrinkage": shrinkage})(train)
    np.testing.assert_allclose(scores.numpy(), matrix @ similarity, atol=1e-6)


def test_linear_filter_is_its_formula(train):
    matrix = dense(train)
    users, items = matrix.sum(axis=1).clip(1), matrix.sum(axis=0).clip(1)
    weights = np.diag(items**-0.2) @ matrix.T @ np.diag(users**-0.5) @ matrix @ np.diag(items**-0.4)
    np.fill_diagonal(weights, 0.0)
    scores = fit("linear_filter", Known(train), {"user": 0.5, "history_item": 0.2, "item": 0.4})(train)
    np.testing.assert_allclose(scores.numpy(), matrix @ weights, atol=1e-5)


def test_ease_says_why_it_is_left_out_of_a_large_catalogue(train):
    with pytest.raises(LeftOutError, match="12 items would take"):
        tune("ease", Known(train), train, Pairs.empty(30, 12), config=BaselinesConfig(ease_max_items=11))


def test_every_setting_is_tried_in_the_configs_order(train):
    config = BaselinesConfig(neighbours=(3, 4), shrinkage=(1.0,), ease_lambda=(2.0,), filter_exponents=(0.1,))
    seen = Pairs.empty(30, 12)
    tried = {
        name: tune(name, Known(train), train, seen, config=config).tried
        for name in ("item_knn", "ease", "linear_filter")
    }
    assert [line["setting"]["neighbours"] for line in tried["item_knn"]] == [3, 4]
    assert {line["setting"]["shrinkage"] for line in tried["item_knn"]} == {1.0}
    assert [line["setting"] for line in tried["ease"]] == [{"lambda": 2.0}]
    assert [line["setting"] for line in tried["linear_filter"]] == [{"user": 0.1, "history_item": 0.1, "item": 0.1}]


def test_climbing_finds_the_best_of_a_grid_with_one_hill_and_tries_less_than_all() -> None:
    settings = [{"a": float(a), "b": float(b)} for a in range(7) for b in range(5)]
    asked: list[Setting] = []

    def quality(setting: Setting) -> float:
        asked.append(setting)
        return -((setting["a"] - 5) ** 2) - (setting["b"] - 1) ** 2

    assert climb(settings, quality) == {"a": 5.0, "b": 1.0}
    assert len({tuple(setting.values()) for setting in asked}) < len(settings) / 2


def test_tuning_starts_where_it_is_told(train):
    config = BaselinesConfig(ease_lambda=(1.0, 10.0, 100.0, 1000.0, 10000.0))

    def tried(start: Earlier | None) -> set[float]:
        found = tune("ease", Known(train), train, Pairs.empty(30, 12), config=config, start=start)
        return {one["setting"]["lambda"] for one in found.tried}

    assert {10000.0, 1000.0} <= tried(Earlier({"lambda": 10000.0})), "the start and its neighbour"
    assert 10000.0 not in tried(Earlier({"lambda": 1.0}))
    assert tried(Earlier({"lambda": 3.0})) == tried(None), "no setting of the grid: its middle"
    assert tried(Earlier({"lambda": 100.0}, worth=lambda figure: figure > 1)) == {100.0}, "it was not worth a climb"
    assert tried(Earlier({"lambda": 100.0}, worth=lambda figure: figure <= 1)) == tried(Earlier({"lambda": 100.0}))


def test_a_neighbour_that_lost_before_is_not_tried_again():
    settings = [{"a": float(a), "b": float(b)} for a in range(5) for b in range(3)]
    at = {"b": 1.0, "a": 2.0}  # keys in another order, as a file may hold them
    figures = {(1.0, 1.0): 0.2, (3.0, 1.0): 0.3, (2.0, 0.0): 0.9}
    assert Earlier(at, figures).passed_over(settings) == [{"a": 1.0, "b": 1.0}], "b = 2 was not tried: it has not lost"
    assert Earlier(at, {}).passed_over(settings) == []
    fixed = Earlier(at, fixed=["b"]).passed_over(settings)
    assert {one["b"] for one in fixed} == {0.0, 2.0}
    assert len(fixed) == 10


def test_tuning_leaves_out_what_is_passed_over_and_keeps_the_scorer_it_chose(train):
    config = BaselinesConfig(ease_lambda=(1.0, 10.0, 100.0, 1000.0, 10000.0))
    known, seen = Known(train), Pairs.empty(30, 12)
    start = Earlier({"lambda": 100.0}, {(10.0,): 0.9, (1000.0,): 0.1})
    found = tune("ease", known, train, seen, config=config, start=start, keep=True)
    assert 1000.0 not in {one["setting"]["lambda"] for one in found.tried}
    assert {10.0, 100.0} <= {one["setting"]["lambda"] for one in found.tried}
    again = fit("ease", known, found.setting, config)
    assert found.scorer is not None
    assert torch.equal(found.scorer(train), again(train))
    assert tune("ease", known, train, seen, config=config, start=start).scorer is None


def test_climbing_from_several_starts_takes_the_higher_of_two_hills():
    settings = [{"a": float(a)} for a in range(9)]
    heights = [0.0, 3.0, 0.0, 0.0, 1.0, 0.0, 0.0, 5.0, 4.0]
    assert climb(settings, lambda one: heights[int(one["a"])]) == {"a": 4.0}
    assert climb(settings, lambda one: heights[int(one["a"])], [{"a": 0.0}, {"a": 8.0}]) == {"a": 7.0}


def test_popularity_of_late_counts_an_event_half_after_each_half_life():
    train = Pairs.of([0, 1, 2], [0, 0, 1], 3, 3)
    known = Known(train, age_N=torch.tensor([0.0, 14.0, 7.0]))
    assert recent_counts(known, 7.0).tolist() == [1.25, 0.5, 0.0]
    assert recent_counts(known, 0.0).tolist() == [2.0, 1.0, 0.0]
    assert recent_counts(Known(train), 7.0).tolist() == [2.0, 1.0, 0.0]


def test_what_was_seen_comes_first_and_is_ordered_by_popularity(train):
    scorer = fit("seen_then_popular", Known(train, repeats=True), {})
    counts = dense(train).sum(axis=0)
    had = Pairs.of([0, 0, 0], [3, 11, 5], 1, 12)
    order = scorer(had)[0].argsort(descending=True, stable=True).tolist()
    assert order[:3] == sorted([3, 5, 11], key=lambda item: -counts[item])
    others = [item for item in range(12) if item not in (3, 5, 11)]
    assert order[3:] == sorted(others, key=lambda item: (-counts[item], item))
    with pytest.raises(LeftOutError, match="no candidate"):
        fit("seen_then_popular", Known(train), {})


def test_graph_kernel_is_the_cosine_of_damped_nodes_plus_popularity(train):
    links = torch.tensor([[0, 20], [1, 20], [1, 21], [2, 21], [3, 20], [5, 1], [0, 20]])
    rows = np.zeros((12, 3))  # nodes 20, 21 and item 1, which item 5 links to
    for item, column in [(0, 0), (1, 0), (3, 0), (1, 1), (2, 1), (5, 2), (1, 2)]:
        rows[item, column] = 1.0
    damped = rows * rows.sum(axis=0) ** -0.25  # hub exponent 0.5, half of it on either side
    unit = damped / np.where(np.linalg.norm(damped, axis=1) > 0, np.linalg.norm(damped, axis=1), 1)[:, None]
    kernel = unit @ unit.T
    np.fill_diagonal(kernel, 0.0)
    raw = dense(train) @ kernel
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    popularity = np.log1p(dense(train).sum(axis=0))
    expected = raw / np.where(lengths > 0, lengths, 1) + 0.3 * popularity / popularity.max()
    scores = fit("graph_kernel", Known(train, item_node_X2=links), {"hub": 0.5, "popularity": 0.3})(train)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)
    assert incidence(links, 12)[1] == 0


def test_the_largest_hubs_are_left_out_when_the_kernel_would_cost_too_much(monkeypatch):
    monkeypatch.setattr("kgrec.evaluation.graph_kernel._MEETINGS", 5)
    links = torch.tensor([[0, 9], [1, 9], [2, 9], [0, 8], [1, 8]])  # 9 joins 9 pairs, 8 joins 4
    matrix, left_out = incidence(links, 3)
    assert (left_out, matrix.toarray().tolist()) == (1, [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])


def test_at_most_so_many_users_choose_a_setting(train):
    config = BaselinesConfig(tuning_users=4)
    tuned = tune("popularity", Known(train), train, Pairs.empty(30, 12), config=config)
    assert tuned.validation["num_users"] == 4


def test_ials_fits_the_weighted_least_squares_of_its_paper(train):
    matrix = dense(train)
    config = BaselinesConfig(ials_factors=4)
    scores = fit("ials", Known(train), {"regularisation": 0.5, "alpha": 3.0}, config)(train).numpy()
    loss = ((1 + 2 * matrix) * (matrix - scores) ** 2).sum()
    constant = ((1 + 2 * matrix) * (matrix - (matrix * 3).sum() / (1 + 2 * matrix).sum()) ** 2).sum()
    assert loss < 0.75 * constant
    heavier = fit("ials", Known(train), {"regularisation": 50.0, "alpha": 3.0}, config)(train).numpy()
    assert np.abs(heavier).sum() < 0.7 * np.abs(scores).sum()
    surer = fit("ials", Known(train), {"regularisation": 0.5, "alpha": 30.0}, config)(train).numpy()
    assert surer[matrix == 1].mean() > scores[matrix == 1].mean()
    wider = fit("ials", Known(train), {"regularisation": 0.5, "alpha": 3.0}, BaselinesConfig(ials_factors=8))(train)
    assert not np.allclose(wider.numpy(), scores)


def test_ials_without_its_package_is_left_out(train, monkeypatch):
    monkeypatch.setattr("kgrec.evaluation.als.AlternatingLeastSquares", None)
    with pytest.raises(LeftOutError, match=r"kgrec\[als\]"):
        fit("ials", Known(train), {"regularisation": 1.0, "alpha": 1.0})
