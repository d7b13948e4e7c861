from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_array

from kgrec import columns as c
from kgrec.graph import leaks
from kgrec.graph.leaks import find_leaks
from kgrec.seeds import numpy_generator

USERS, ITEMS = 400, 300
GROUPS = 20


def world(seed=3, per_user=12):
    """Users of 20 tastes; a taste has 15 items. Each user's last events are test."""
    draw = np.random.default_rng(seed)
    rows = []
    for user in range(USERS):
        own = np.flatnonzero(np.arange(ITEMS) % GROUPS == user % GROUPS)
        items = np.unique(np.concatenate([draw.choice(own, 4, replace=False), draw.choice(ITEMS, per_user)]))
        for at, item in enumerate(draw.permutation(items)):
            rows.append((user, int(item), c.TRAIN if at < 10 else c.TEST))
    return pl.DataFrame(rows, schema={c.USER_ROW: c.ROW_TYPE, c.ITEM_ROW: c.ROW_TYPE, c.PART: pl.String}, orient="row")


def triples(pairs, known=None):
    frame = pl.DataFrame(
        [(head, 0, tail) for head, tail in pairs],
        schema=dict.fromkeys((c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW), c.ROW_TYPE), orient="row",
    )  # fmt: skip
    return frame.with_columns(pl.lit(known, c.TIME_TYPE).alias(c.KNOWN_AT))


def suspects(rows, name="relation", events=None, likeness=0.95):
    log = world() if events is None else events
    return find_leaks(rows, [name], log, ITEMS, likeness, numpy_generator(1, "leaks"))


def together(events):
    """Pairs of items with the largest cosine over the log, ten an item: what a shop calls "also bought"."""
    matrix = np.zeros((USERS, ITEMS))
    matrix[events[c.USER_ROW].to_numpy(), events[c.ITEM_ROW].to_numpy()] = 1
    counts = matrix.T @ matrix
    cosine = counts / np.sqrt(np.maximum(np.outer(np.diag(counts), np.diag(counts)), 1))
    np.fill_diagonal(cosine, 0)
    return [(item, int(other)) for item in range(ITEMS) for other in np.argsort(-cosine[item])[:10]]


def test_what_was_had_together_is_found_directly_and_by_a_third_node():
    events = world()
    (found,) = suspects(triples(together(events)))
    assert found.certain
    assert found.likeness > 0.97
    pairs = together(events)[:1500]
    baskets = [(item, ITEMS + at) for at, pair in enumerate(pairs) for item in pair]
    (basket,) = suspects(triples(baskets), "in_basket")
    assert basket.likeness > 0.95 or "later" in basket.why


def test_a_node_that_few_items_share_is_reported_and_let_through():
    """An author's books are read by the same people: that is what the graph is for."""
    events = world()
    authors = [(item, ITEMS + item // (3 * GROUPS) * GROUPS + item % GROUPS) for item in range(ITEMS)]
    for one in suspects(triples(authors), "has_author", events, likeness=0.6):
        assert not one.certain
    assert suspects(triples(authors), "has_author", events, likeness=0.6)


def test_users_as_entities_are_found():
    had = world().select(c.ITEM_ROW, (pl.col(c.USER_ROW) + ITEMS).alias("node")).iter_rows()
    (found,) = suspects(triples(had), "seen_in_session")
    assert "have the items of one user" in found.why


def test_a_relation_made_of_the_future_is_found():
    events = world()
    test = events.filter(pl.col(c.PART) == c.TEST)
    train = {
        user: set(rows[c.ITEM_ROW]) for (user,), rows in events.filter(pl.col(c.PART) == c.TRAIN).group_by([c.USER_ROW])
    }
    pairs = [
        (int(a), int(b))
        for (user,), rows in test.group_by([c.USER_ROW], maintain_order=True)
        for a in sorted(train.get(user, ()))
        for b in rows[c.ITEM_ROW]
    ]
    fresh = [p for p in dict.fromkeys(pairs) if not any({*p} <= had for had in train.values())]
    assert len(fresh) > 100
    (found,) = suspects(triples(fresh), likeness=1.0)
    assert "100% were had together later" in found.why


def test_what_an_item_is_about_is_no_leak_though_it_explains_the_log():
    tastes = [(item, ITEMS + item % GROUPS) for item in range(ITEMS)]
    assert suspects(triples(tastes), "genre") == []
    draw = np.random.default_rng(0)
    noise = [(int(a), int(b)) for a, b in draw.integers(0, ITEMS, (2000, 2)) if a != b]
    assert suspects(triples(noise)) == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("also_bought", True),
        ("shop.item.alsoViewed", True),
        ("co-purchase", True),
        ("sequel", False),
        ("has_author", False),
    ],
)
def test_a_name_can_say_it(name, found):
    assert bool(suspects(triples([(0, 1), (1, 2)]), name)) is found


def test_time_stamped_relations_are_left_to_the_split():
    stamped = triples(together(world()), datetime(2024, 1, 1, tzinfo=UTC))
    assert suspects(stamped, "also_bought") == []


def test_the_threshold_decides():
    tastes = [(item, (item + GROUPS) % ITEMS) for item in range(ITEMS)]
    assert suspects(triples(tastes), "same_taste") == []
    (found,) = suspects(triples(tastes), "same_taste", likeness=0.6)
    assert 0.6 < found.likeness < 0.95


def test_pairs_are_counted_by_parts_as_at_once(monkeypatch: pytest.MonkeyPatch):
    draw = np.random.default_rng(0)
    matrix = csr_array((draw.random((9, 20)) < 0.4).astype(np.float32))
    pairs = draw.integers(0, 9, (50, 2))
    expected = [(matrix[[a]].multiply(matrix[[b]])).sum() for a, b in pairs]
    for cells in (1, 13, 10_000):
        monkeypatch.setattr(leaks, "_CELLS", cells)
        assert leaks._together(matrix, pairs).tolist() == expected
        assert leaks._together(matrix, pairs[:0]).tolist() == []
