"""Figures of lists besides their hits, against slow loops over items and pairs."""

import math
from itertools import combinations, product

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.evaluation.beyond_accuracy import Background, beyond_accuracy, gini, node_vectors
from kgrec.evaluation.pairs import Pairs

ITEMS, NODES = 6, 4


def pairs_of(rows):
    flat = [(user, item) for user, items in enumerate(rows) for item in items]
    users, items = zip(*flat, strict=True) if flat else ((), ())
    return Pairs.of(list(users), list(items), len(rows), ITEMS)


@st.composite
def worlds(draw):
    """Lists that run short or are empty, users without history or truth, items without a node."""
    users = draw(st.integers(1, 4))
    subset = st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=4)
    lists, history, truth, popular = ([draw(subset) for _ in range(users)] for _ in range(4))
    nodes = [draw(st.sets(st.integers(0, NODES - 1), max_size=3)) for _ in range(ITEMS)]
    counts = draw(st.lists(st.integers(0, 9), min_size=ITEMS, max_size=ITEMS))
    return lists, history, truth, popular, nodes, counts, draw(st.integers(1, 4))


def padded(lists):
    return torch.tensor([(items + [-1] * 4)[:4] for items in lists])


def cosine(first, second, degree):
    weight = {node: (degree[node] ** -0.25) ** 2 for node in degree if degree[node]}
    shared = sum(weight[node] for node in first & second)
    sizes = [math.sqrt(sum(weight[node] for node in nodes)) for nodes in (first, second)]
    return shared / (sizes[0] * sizes[1]) if first and second else 0.0


def divergence(history, shown, nodes):
    def tastes(items):
        total = [sum(1 / len(nodes[i]) for i in items if node in nodes[i]) for node in range(NODES)]
        return [value / sum(total) for value in total] if sum(total) else None

    wanted, given = tastes(history), tastes(shown)
    if wanted is None or given is None:
        return None
    return sum(p * math.log2(p / (0.99 * q + 0.01 * p)) for p, q in zip(wanted, given, strict=True) if p)


def slow(world):
    lists, history, truth, popular, nodes, counts, k = world
    cut = [items[:k] for items in lists]
    degree = {node: sum(node in own for own in nodes) for node in range(NODES)}
    shown = [sum(item in items for items in cut) for item in range(ITEMS)]
    users = max(*counts, len(lists))
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    found = {"coverage": sum(s > 0 for s in shown) / ITEMS, "gini": slow_gini(shown)}
    found["novelty"] = mean(
        [mean([-math.log2((counts[i] + 1) / (users + 1)) for i in items]) for items in cut if items]
    )
    both = [(items, had) for items, had in zip(cut, history, strict=True) if items and had]
    if both:
        of_lists, of_had = (mean([mean([counts[i] for i in one[side]]) for one in both]) for side in (0, 1))
        found |= {"popularity_bias": of_lists / of_had - 1} if of_had else {}
        apart = [mean([1 - cosine(nodes[i], nodes[j], degree) for i, j in product(*one)]) for one in both]
        found["distance_to_history"] = mean(apart)
    varied = [items for items in cut if len(items) > 1]
    if varied:
        pairs = [[1 - cosine(nodes[i], nodes[j], degree) for i, j in combinations(items, 2)] for items in varied]
        found["diversity"] = mean([mean(one) for one in pairs])
    rows = zip(cut, truth, popular, strict=True)
    lucky = [len(set(items) & set(want) - set(known[:k])) / k for items, want, known in rows if want]
    found["serendipity"] = mean(lucky) if lucky else 0.0
    gaps = [divergence(had, items, nodes) for items, had in zip(cut, history, strict=True)]
    gaps = [gap for gap in gaps if gap is not None]
    return found | ({"miscalibration": mean(gaps)} if gaps else {})


def slow_gini(amounts):
    total = sum(amounts)
    return sum(abs(a - b) for a in amounts for b in amounts) / (2 * len(amounts) * total) if total else 0.0


def incidence(nodes):
    return scipy.sparse.csr_array(np.array([[float(node in own) for node in range(NODES)] for own in nodes]))


@given(worlds())
@settings(max_examples=300, deadline=None)
def test_every_figure_equals_a_slow_loop(world):
    lists, history, truth, popular, nodes, counts, k = world
    background = Background(
        pairs_of(history), torch.tensor(counts), torch.ones(ITEMS, dtype=torch.bool), node_vectors(incidence(nodes)),
        incidence(nodes), padded(popular),
    )  # fmt: skip
    ours = beyond_accuracy(padded(lists), pairs_of(truth), k, background)
    if not any(items[:k] for items in lists):
        assert ours == {}
        return
    expected = {f"{name}@{k}": value for name, value in slow(world).items()}
    assert ours == pytest.approx(expected, abs=1e-9)


def test_what_was_not_given_is_absent():
    plain = Background(pairs_of([[0]]), torch.ones(ITEMS), torch.ones(ITEMS, dtype=torch.bool))
    found = beyond_accuracy(torch.tensor([[1, 2]]), pairs_of([[1]]), 2, plain)
    assert set(found) == {"coverage@2", "gini@2", "novelty@2", "popularity_bias@2"}


def test_coverage_and_gini_look_at_the_catalogue_alone():
    catalogue = torch.tensor([True, True, False, False, False, False])
    found = beyond_accuracy(
        torch.tensor([[0, 1]]), pairs_of([[]]), 2, Background(pairs_of([[]]), torch.ones(6), catalogue)
    )
    assert (found["coverage@2"], found["gini@2"]) == (1.0, 0.0)
    assert gini([0, 0]) == 0.0
