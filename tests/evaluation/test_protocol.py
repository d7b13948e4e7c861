from __future__ import annotations

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec import columns as c
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.protocol import answer, ask, judge_ranking, target_pairs, with_fallback
from kgrec.evaluation.ranking import EvaluationConfig, ExcludeSeen, HistoryKnown, Target

USERS, ITEMS = 4, 6
SCHEMA = {c.USER_ROW: c.ROW_TYPE, c.ITEM_ROW: c.ROW_TYPE, c.CLICK: pl.Boolean, c.CONVERSION: pl.Boolean,
          c.PART: c.PART_TYPE}  # fmt: skip
LABELS = {"click": (True, False), "conversion": (False, True), "both": (True, True)}
PARTS = ["train", "validation", "test"]


def log(*rows):
    """Return events from (user, item, what, part)."""
    flat = [(user, item, *LABELS[what], part) for user, item, what, part in rows]
    return pl.DataFrame(flat, schema=SCHEMA, orient="row")


def config(exclude_seen="any", target="click", k=(2,), history="all"):
    seen, known = ExcludeSeen(exclude_seen), HistoryKnown(history)
    return EvaluationConfig(k=k, target=Target(target), exclude_seen=seen, history=known)


def question(events, part="test", catalogue=(True,) * ITEMS, **settings):
    return ask(events, part, config(**settings), torch.tensor(catalogue), USERS)


def listed(pairs):
    return set(zip(pairs.rows().tolist(), pairs.indices.tolist(), strict=True))


def truth_of(asked):
    users = asked.users_B.tolist()
    return {(users[row], item) for row, item in listed(asked.truth)}


LOG = log(
    (0, 0, "click", "train"), (0, 1, "both", "train"), (0, 2, "click", "validation"),
    (0, 0, "both", "test"), (0, 1, "both", "test"), (0, 3, "click", "test"),
    (1, 4, "click", "validation"), (1, 4, "conversion", "test"), (1, 5, "conversion", "test"),
    (2, 2, "click", "test"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("exclude_seen", "target", "truth", "seen"),
    [
        ("any", "click", {(0, 3), (1, 5), (2, 2)}, {(0, 0), (0, 1), (0, 2), (1, 4)}),
        ("target", "click", {(0, 3), (1, 5), (2, 2)}, {(0, 0), (0, 1), (0, 2), (1, 4)}),
        ("none", "click", {(0, 0), (0, 1), (0, 3), (1, 4), (1, 5), (2, 2)}, set()),
        ("any", "conversion", {(1, 5)}, {(0, 0), (0, 1), (0, 2), (1, 4)}),
        ("target", "conversion", {(0, 0), (1, 4), (1, 5)}, {(0, 1)}),
        ("none", "conversion", {(0, 0), (0, 1), (1, 4), (1, 5)}, set()),
    ],
)
def test_what_was_seen_is_no_candidate_and_no_truth(exclude_seen, target, truth, seen):
    asked = question(LOG, exclude_seen=exclude_seen, target=target)
    assert truth_of(asked) == truth
    assert listed(asked.seen) == seen
    relevant = {(0, 0), (0, 1), (1, 4), (1, 5)} | ({(0, 3), (2, 2)} if target == "click" else set())
    assert asked.truth_already_seen == len(relevant - truth)
    assert asked.users_B.tolist() == sorted({user for user, _ in truth})


def test_validation_knows_train_only():
    asked = question(LOG, "validation")
    assert truth_of(asked) == {(0, 2), (1, 4)}
    assert listed(asked.seen) == listed(asked.history) == {(0, 0), (0, 1)}


def test_the_history_at_test_is_all_that_came_before():
    asked = question(LOG)
    assert listed(asked.history) == {(0, 0), (0, 1), (0, 2), (1, 4)}
    assert listed(question(LOG, target="conversion").target_history) == {(0, 1)}


def test_the_history_is_train_or_validation_for_those_without_train():
    asked = question(LOG, history="train")
    assert listed(asked.history) == {(0, 0), (0, 1), (1, 4)}
    assert listed(asked.target_history) == {(0, 0), (0, 1), (1, 4)}
    assert listed(question(LOG, target="conversion", history="train").target_history) == {(0, 1)}
    assert listed(question(LOG, exclude_seen="none", history="train").history) == listed(asked.history)


def test_cold_items_are_those_of_the_catalogue_that_no_train_event_names():
    asked = question(LOG, catalogue=(True, True, True, False, True, True))
    assert asked.cold_I.tolist() == [False, False, True, False, True, True]
    assert asked.candidates_I.tolist() == [True, True, True, False, True, True]


def test_a_part_without_anybody_to_ask_has_no_figures():
    asked = question(log((0, 0, "click", "train"), (0, 0, "click", "test")))
    assert asked.truth_already_seen == 1
    assert asked.users_B.tolist() == []
    assert judge_ranking(asked, answer(asked, lambda rows: torch.zeros(len(rows), ITEMS), 2), config()) == {}


def test_answers_leave_out_the_seen_and_what_is_not_in_the_catalogue():
    asked = question(LOG, catalogue=(True, True, True, True, True, False))
    top_BK = answer(asked, lambda rows: torch.arange(ITEMS).float().repeat(len(rows), 1), 3)
    assert top_BK.tolist() == [[4, 3, -1], [3, 2, 1], [4, 3, 2]]


def test_figures_by_hand_and_cold_only_where_there_is_a_cold_truth():
    asked = question(LOG)
    top_BK = torch.tensor([[3, 4], [0, 5], [0, 1]])
    figures = judge_ranking(asked, top_BK, config())
    assert figures["ranking"]["recall@2"] == pytest.approx(2 / 3)
    assert figures["ranking"]["mrr@2"] == pytest.approx((1 + 1 / 2) / 3)
    assert figures["ranking"]["num_users"] == 3
    assert figures["ranking_cold"]["num_users"] == 3
    warm = question(log((0, 0, "click", "train"), (1, 1, "click", "train"), (0, 1, "click", "test")))
    assert set(judge_ranking(warm, torch.tensor([[1, 2]]), config())) == {"ranking"}


def test_target_pairs_count_a_conversion_as_a_click_and_not_the_reverse():
    events = log(
        (0, 0, "click", "train"), (0, 1, "conversion", "train"), (1, 2, "both", "test"), (1, 2, "click", "test")
    )
    assert listed(target_pairs(events, ["train"], Target.CLICK, USERS, ITEMS)) == {(0, 0), (0, 1)}
    assert listed(target_pairs(events, ["train", "test"], Target.CONVERSION, USERS, ITEMS)) == {(0, 1), (1, 2)}
    assert listed(target_pairs(events, [], Target.CLICK, USERS, ITEMS)) == set()


def test_the_fallback_is_for_those_without_history_alone_and_leaves_the_scores_be():
    scores_UI = torch.arange(8.0).reshape(4, 2)
    before = scores_UI.clone()
    popularity_I = torch.tensor([9, 1])
    scorer = with_fallback(lambda rows: scores_UI[rows], Pairs.of([0, 2], [1, 0], 4, 2), popularity_I)
    assert scorer(torch.tensor([3, 2, 0])).tolist() == [[9, 1], [4, 5], [0, 1]]
    whole = with_fallback(lambda rows: scores_UI, Pairs.empty(4, 2), popularity_I)
    assert whole(torch.arange(4)).tolist() == [[9, 1]] * 4
    assert scores_UI.equal(before)


EVENT = st.tuples(
    st.integers(0, USERS - 1), st.integers(0, ITEMS - 1), st.sampled_from(list(LABELS)), st.sampled_from(PARTS)
)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(EVENT, max_size=30),
    st.sampled_from(["validation", "test"]),
    st.sampled_from(["any", "target", "none"]),
    st.sampled_from(["click", "conversion"]),
    st.sampled_from(["all", "train"]),
)
def test_the_question_is_that_of_a_slow_oracle(rows, part, exclude_seen, target, history):
    def hits(what):
        return target == "click" or LABELS[what][1]

    before_parts = PARTS[: PARTS.index(part)]
    before = [row for row in rows if row[3] in before_parts]
    with_train = {user for user, _, _, where in rows if where == "train"}
    known = [row for row in before if history == "all" or row[3] == "train" or row[0] not in with_train]
    seen = {(user, item) for user, item, what, _ in before
            if exclude_seen == "any" or (exclude_seen == "target" and hits(what))}  # fmt: skip
    relevant = {(user, item) for user, item, what, where in rows if where == part and hits(what)}
    asked = question(log(*rows), part, exclude_seen=exclude_seen, target=target, history=history)
    assert listed(asked.seen) == seen
    assert truth_of(asked) == relevant - seen
    assert asked.truth_already_seen == len(relevant & seen)
    assert listed(asked.history) == {row[:2] for row in known}
    assert listed(asked.target_history) == {row[:2] for row in known if hits(row[2])}
    warm = {item for _, item, _, where in rows if where == "train"}
    assert asked.cold_I.tolist() == [item not in warm for item in range(ITEMS)]
    assert asked.truth.num_rows == len(asked.users_B)
    assert bool((asked.truth.counts() > 0).all())
