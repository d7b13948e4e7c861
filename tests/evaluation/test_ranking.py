"""Exact lists and their metrics, against slow plain Python and against ir-measures."""

import math
from itertools import product

import ir_measures
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.ranking import (
    EvaluationConfig,
    ExcludeSeen,
    Target,
    metrics_per_user,
    ranking_cold,
    ranking_metrics,
    seen_pairs,
    top_k,
    top_k_dot,
)
from kgrec.evaluation.selection import best_of, places_of


def pairs_of(rows, num_items):
    flat = [(user, item) for user, items in enumerate(rows) for item in items]
    users, items = zip(*flat, strict=True) if flat else ((), ())
    return Pairs.of(list(users), list(items), len(rows), num_items)


def slow_top(scores, banned, k):
    order = sorted(
        (i for i, s in enumerate(scores) if i not in banned and s != -math.inf), key=lambda i: (-scores[i], i)
    )
    return (order + [-1] * k)[:k]


def slow_metrics(top, relevant, k):
    hits = [i for i, item in enumerate(top[:k]) if item in relevant]
    ideal = sum(1 / math.log2(i + 2) for i in range(min(len(relevant), k)))
    return {
        f"recall@{k}": len(hits) / len(relevant),
        f"ndcg@{k}": sum(1 / math.log2(i + 2) for i in hits) / ideal,
        f"mrr@{k}": 1 / (hits[0] + 1) if hits else 0.0,
        f"precision@{k}": len(hits) / k,
        f"hit@{k}": float(bool(hits)),
        f"map@{k}": sum((n + 1) / (i + 1) for n, i in enumerate(hits)) / len(relevant),
        f"r_precision@{k}": sum(i < len(relevant) for i in hits) / len(relevant),
    }


@st.composite
def worlds(draw):
    """Few score values (many ties), seen items, a candidate mask, empty rows and lists that run short."""
    users, items = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    scores = [[draw(st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 1.0])) for _ in range(items)] for _ in range(users)]
    subsets = st.sets(st.integers(0, items - 1))
    seen, truth = ([draw(subsets) for _ in range(users)] for _ in range(2))
    return scores, seen, truth, draw(st.none() | subsets), draw(st.integers(1, 12)), draw(st.integers(1, 6))


@given(worlds())
@settings(max_examples=80, deadline=None)
def test_lists_equal_a_plain_sort(world):
    scores, seen, _, candidates, k, chunk = world
    items = len(scores[0])
    mask = None if candidates is None else torch.tensor([i in candidates for i in range(items)])
    table = torch.tensor(scores)
    asked = torch.arange(len(scores)).flip(0)
    top = top_k(lambda rows: table[rows], asked, pairs_of(seen, items), k, candidates_I=mask, chunk=chunk)
    outside = set() if candidates is None else set(range(items)) - candidates
    assert top.tolist() == [slow_top(scores[u], seen[u] | outside, k) for u in asked.tolist()]
    assert torch.equal(table, torch.tensor(scores)), "the scorer's own table was written to"


@given(worlds())
@settings(max_examples=1000, deadline=None)
def test_metrics_equal_slow_python_and_ir_measures(world):
    scores, seen, truth, _, k, _ = world
    items = len(scores[0])
    table = torch.tensor(scores)
    top = top_k(lambda rows: table[rows], torch.arange(len(scores)), pairs_of(seen, items), k)
    ours = ranking_metrics(top, pairs_of(truth, items), [k])
    judged = [u for u, relevant in enumerate(truth) if relevant]
    assert (ours["num_users"], ours["num_users_without_relevant"]) == (len(judged), len(scores) - len(judged))
    if not judged:
        assert set(ours) == {"num_users", "num_users_without_relevant"}
        return
    slow = [slow_metrics(top[u].tolist(), truth[u], k) for u in judged]
    for name in slow[0]:
        assert ours[name] == pytest.approx(np.mean([line[name] for line in slow]), abs=1e-12)
    names = {"recall": ir_measures.R, "ndcg": ir_measures.nDCG, "mrr": ir_measures.RR, "precision": ir_measures.P}
    names |= {"hit": ir_measures.Success, "map": ir_measures.AP}
    qrels = {str(u): {str(i): 1 for i in truth[u]} for u in judged}
    run = {str(u): {str(i): -float(r) for r, i in enumerate(top[u].tolist()) if i >= 0} for u in judged}
    theirs = ir_measures.calc_aggregate([measure @ k for measure in names.values()], qrels, run)
    for name, measure in names.items():
        assert ours[f"{name}@{k}"] == pytest.approx(theirs[measure @ k], abs=1e-9), name
    whole = ir_measures.calc_aggregate([ir_measures.Rprec], qrels, cut_at(run, k))[ir_measures.Rprec]
    assert ours[f"r_precision@{k}"] == pytest.approx(whole, abs=1e-9)
    del names["mrr"]  # of equal scores trec_eval puts the larger name first, the code behind RR@k the smaller
    tied = ir_measures.calc_aggregate([m @ k for m in names.values()], *from_the_end(scores, seen, truth))
    for name, measure in names.items():
        assert ours[f"{name}@{k}"] == pytest.approx(tied[measure @ k], abs=1e-9), f"{name}, ties left to trec_eval"


def from_the_end(scores, seen, truth):
    """Return relevance and scores with items numbered from the end, so that the smaller row has the larger name."""
    last = len(scores[0]) - 1
    qrels = {str(u): {str(last - i): 1 for i in own} for u, own in enumerate(truth) if own}
    run = {
        user: {str(last - i): s for i, s in enumerate(scores[int(user)]) if i not in seen[int(user)] and s > -math.inf}
        for user in qrels
    }
    return qrels, run


def cut_at(run, k):
    """Keep the k best of each list: R-precision has no cut of its own."""
    return {user: dict(sorted(scores.items(), key=lambda one: -one[1])[:k]) for user, scores in run.items()}


def test_dot_products_give_the_lists_of_the_full_score_table():
    generator = torch.Generator().manual_seed(3)
    users = torch.randint(-2, 3, (40, 4), generator=generator).float()  # whole numbers: exact sums, many ties
    items = torch.randint(-2, 3, (90, 4), generator=generator).float()
    seen = Pairs.of(torch.arange(40).repeat(3), torch.arange(120) % 90, 40, 90)
    mask = torch.arange(90) % 7 != 0
    asked = torch.tensor([5, 5, 39, 0])
    expected = top_k(lambda rows: (users @ items.T)[rows], asked, seen, 10, candidates_I=mask)
    assert torch.equal(top_k_dot(users, items, asked, seen, 10, candidates_I=mask, chunk=3), expected)
    plain = (users @ items.T).tolist()
    banned = [{i for i in range(90) if not mask[i]} | set(seen.take(torch.tensor([u])).indices.tolist()) for u in asked]
    assert expected.tolist() == [slow_top(plain[u], banned[place], 10) for place, u in enumerate(asked.tolist())]


def test_neither_chunks_nor_threads_change_a_bit_or_the_memory():
    """Real vectors, for whose sums the order of adding would show; a chunk of one user is another product for BLAS."""
    generator = torch.Generator().manual_seed(8)
    users, items = (torch.randn(rows, 64, generator=generator) for rows in (300, 2_000))
    items[1_000:] = items[:1_000]  # every item has an equal one: ties at every place
    seen = Pairs.of(torch.arange(300).repeat(2), torch.arange(600) * 7 % 2_000, 300, 2_000)
    truth = Pairs.of(torch.arange(300).repeat(3), torch.arange(900) * 11 % 2_000, 300, 2_000)
    expected = top_k_dot(users, items, torch.arange(300), seen, 20)
    figures = ranking_metrics(expected, truth, [5, 20])
    threads = torch.get_num_threads()
    try:
        for chunk, number in product((2, 7, 64, 300), (1, 2)):
            torch.set_num_threads(number)
            found = top_k_dot(users, items, torch.arange(300), seen, 20, chunk=chunk)
            assert torch.equal(found, expected), (chunk, number)
            assert ranking_metrics(found, truth, [5, 20]) == figures
    finally:
        torch.set_num_threads(threads)


def test_a_tie_across_the_whole_catalogue_goes_by_item_row():
    assert top_k(lambda rows: torch.zeros(len(rows), 5000), torch.arange(70), None, 20)[69].tolist() == list(range(20))


def test_whole_number_scores_and_no_users():
    assert top_k(lambda rows: torch.tensor([[3, 9]]), torch.tensor([0]), None, 1).tolist() == [[1]]
    assert top_k(lambda rows: torch.zeros(len(rows), 4), torch.tensor([], dtype=torch.int64), None, 3).shape == (0, 3)


@pytest.mark.parametrize("place", [0, 1, 4])
def test_nan_is_refused_also_on_a_seen_item(place):
    scores = torch.arange(5.0)[None].clone()
    scores[0, place] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        top_k(lambda rows: scores, torch.tensor([0]), pairs_of([{1}], 5), 2)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([2, 5, 1000]))
def test_the_places_of_what_is_wanted_are_those_of_the_sorted_lists(seed, k, different):
    numbers = np.random.default_rng(seed)
    shape = numbers.integers(0, 6), numbers.integers(1, 20)
    scores = numbers.integers(0, different, shape).astype(np.float32)  # ties, also where k cuts between equals
    scores[numbers.random(shape) < 0.2] = -np.inf
    wanted = torch.from_numpy(numbers.random(shape) < 0.3)
    top = best_of(torch.from_numpy(scores), min(k, shape[1]))
    expected = wanted.gather(1, top.clamp(min=0)) & (top >= 0)
    assert torch.equal(places_of(torch.from_numpy(scores), wanted.nonzero(), k), expected)


def test_the_places_of_what_is_wanted_refuse_nan():
    with pytest.raises(ValueError, match="NaN"):
        places_of(torch.tensor([[0.0, float("nan"), 2.0]]), torch.tensor([[0, 2]]), 1)


def test_metrics_refuse_what_cannot_be_meant():
    truth = pairs_of([{0}], 3)
    faults = [
        ([[0, 0]], [1], "twice"),
        ([[0, 1]], [3], "k must"),
        ([[0, 7]], [1], "item row"),
        ([[0], [1]], [1], "lists"),
    ]
    for top, ks, word in faults:
        with pytest.raises(ValueError, match=word):
            ranking_metrics(torch.tensor(top), truth, ks)


def test_users_in_the_per_user_table_are_those_with_truth():
    table = metrics_per_user(torch.tensor([[0], [1], [2]]), pairs_of([{0}, set(), {1}], 3), [1])
    assert table["row"].tolist() == [0, 2]
    assert table["hit@1"].tolist() == [1.0, 0.0]


def test_cold_ranking_counts_cold_items_only():
    top = torch.tensor([[0, 3], [3, 1]])
    cold = torch.tensor([False, False, False, True])
    result = ranking_cold(top, pairs_of([{0, 3}, {1}], 4), cold, [1, 2])
    assert (result["recall@1"], result["recall@2"], result["num_users"]) == (0.0, 1.0, 1)
    assert ranking_cold(top, pairs_of([{0}, {1}], 4), cold, [1]) == {"num_users": 0, "num_users_without_relevant": 2}


def test_pairs_are_sets_and_keep_their_shape():
    pairs = Pairs.of([2, 0, 2, 2], [1, 3, 0, 1], num_rows=4, num_columns=5)
    assert pairs.indptr.tolist() == [0, 1, 1, 3, 3]
    assert pairs.indices.tolist() == [3, 0, 1]
    taken = pairs.take(torch.tensor([2, 1, 2]))
    assert (taken.indptr.tolist(), taken.indices.tolist()) == ([0, 2, 2, 4], [0, 1, 0, 1])
    union = pairs.union(Pairs.of([1, 2], [4, 1], 4, 5))
    assert union.rows().tolist() == [0, 1, 2, 2]
    with pytest.raises(ValueError, match="shapes"):
        pairs.union(Pairs.empty(3, 5))
    with pytest.raises(ValueError, match="column"):
        Pairs.of([0], [5], 1, 5)


def test_seen_follows_the_setting():
    anything, target = Pairs.of([0, 0], [1, 2], 1, 3), Pairs.of([0], [2], 1, 3)
    sizes = {choice: len(seen_pairs(choice, anything, target).indices) for choice in ExcludeSeen}
    assert sizes == {ExcludeSeen.ANY: 2, ExcludeSeen.TARGET: 1, ExcludeSeen.NONE: 0}


def test_config_words_become_objects_and_faults_are_refused():
    config = EvaluationConfig.model_validate({"k": [20, 10, 20], "target": "conversion", "exclude_seen": "none"})
    assert (config.k, config.target, config.exclude_seen) == ((10, 20), Target.CONVERSION, ExcludeSeen.NONE)
    for wrong in ({"k": [0]}, {"k": []}, {"target": "buy"}, {"kk": [1]}):
        with pytest.raises(ValidationError):
            EvaluationConfig.model_validate(wrong)
