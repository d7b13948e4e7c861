"""Any system's table against hand-counted metrics, and every refusal."""

import ir_measures
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgrec.errors import InputError
from kgrec.evaluation.tables import evaluate_tables

TRUTH = pl.DataFrame({"user": ["u", "u", "v", "w"], "item": ["a", "b", "c", "a"]})
SCORED = pl.DataFrame(
    {"user": ["u", "u", "u", "v", "x"], "item": ["z", "a", "b", "d", "a"], "score": [0.9, 0.8, 0.8, 0.1, 0.5]}
)


def refusals(recommendations, truth=TRUTH, k=10):
    with pytest.raises(InputError) as caught:
        evaluate_tables(recommendations, truth, k)
    assert all(problem.remedy for problem in caught.value.problems)
    return caught.value.problems


def test_hand_counted():
    result = evaluate_tables(SCORED, TRUTH, [1, 2])
    assert result["recall@1"] == 0.0
    assert result["recall@2"] == pytest.approx((0.5 + 0 + 0) / 3)  # u: z, a; v: d; w: no list
    assert result["mrr@2"] == pytest.approx(0.5 / 3)
    assert (result["num_users"], result["num_users_without_relevant"]) == (3, 1)
    assert result["num_users_without_recommendations"] == 1


def test_neither_row_order_nor_id_type_matters():
    lists = pl.DataFrame({"user": [1, 1, 2], "item": [10, 9, 9], "score": [1, 1, 3]})
    truth = pl.DataFrame({"user": ["1", "2", "2"], "item": ["10", "9", "9"]})
    result = evaluate_tables(lists, truth, 1)
    assert result["recall@1"] == 1.0, "equal scores go by the item's text: '10' before '9'"
    assert evaluate_tables(lists.reverse(), truth, 1) == result


def test_ranks_give_what_scores_give_and_a_gap_is_an_empty_place():
    ranked = pl.DataFrame({"user": ["u", "u", "v"], "item": ["b", "z", "d"], "rank": [3, 1, 1]})
    result = evaluate_tables(ranked, TRUTH, [2, 3])
    assert result["hit@2"] == 0.0
    assert result["mrr@3"] == pytest.approx(1 / 3 / 3)
    scored = ranked.with_columns(score=-pl.col("rank").cast(pl.Float64)).drop("rank")
    assert evaluate_tables(scored, TRUTH, [3])["mrr@3"] == pytest.approx(1 / 2 / 3)


def test_lists_longer_than_k_and_no_lists_at_all():
    long = pl.DataFrame({"user": ["u"] * 30, "item": [f"i{n}" for n in range(29)] + ["a"], "rank": list(range(1, 31))})
    assert evaluate_tables(long, TRUTH, 10)["hit@10"] == 0.0
    assert evaluate_tables(long, TRUTH, 30)["hit@30"] == pytest.approx(1 / 3)
    assert evaluate_tables(SCORED.clear(), TRUTH, 10)["recall@10"] == 0.0


@pytest.mark.parametrize(
    ("table", "what", "count"),
    [
        (SCORED.drop("item"), "no column 'item'", None),
        (SCORED.drop("score"), "neither", None),
        (SCORED.with_columns(rank=1), "both", None),
        (SCORED.with_columns(user=pl.lit(None, pl.String)), "user is null", 5),
        (SCORED.with_columns(item=pl.lit("a")), "repeated for a user", 2),
        (SCORED.with_columns(score=pl.lit(float("nan"))), "null or NaN", 5),
        (SCORED.with_columns(score=pl.lit("high")), "no number", None),
        (SCORED.rename({"score": "rank"}), "no whole number", 5),
        (SCORED.drop("score").with_columns(rank=pl.lit(1)), "rank is repeated", 2),
        (SCORED.drop("score").with_columns(rank=pl.Series([2, 3, 4, 1, 1])), "do not start at 1", 1),
        (SCORED.drop("score").with_columns(rank=pl.Series([1, 2, 0, 1, 1])), "no whole number", 1),
    ],
)
def test_each_fault_is_named_with_its_count(table, what, count):
    found = [problem for problem in refusals(table) if what in problem.what]
    assert len(found) == 1
    assert found[0].count == count
    assert count is None or found[0].example


def test_faults_of_both_tables_and_of_k_come_at_once():
    bad = SCORED.with_columns(score=pl.lit(None, pl.Float64), item=pl.lit(None, pl.String))
    problems = refusals(bad, TRUTH.clear().drop("user"), k=[0])
    assert {problem.where for problem in problems} == {"k", "recommendations", "truth"}
    assert len(problems) == 5  # k, null item, null score, no user column, empty truth


LISTS = st.lists(
    st.tuples(
        st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8),  # nothing at all, or a short list
        st.lists(st.sampled_from([-1.5, 0.0, 2.0]), min_size=8, max_size=8),  # many ties
        st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=6),  # relevant, some named twice
    ),
    min_size=10,
    max_size=20,
)


@given(LISTS, st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_a_thousand_lists_and_more_equal_ir_measures(users, k):
    lists = [(u, i, s) for u, (items, scores, _) in enumerate(users) for i, s in zip(items, scores, strict=False)]
    truth = [(u, item) for u, (_, _, wanted) in enumerate(users) for item in wanted]
    schema = {"user": pl.Int64, "item": pl.String, "score": pl.Float64}
    ours = evaluate_tables(
        pl.DataFrame(lists, schema=schema, orient="row"), pl.DataFrame(truth, schema=["user", "item"], orient="row"), k
    )
    better = {i: str("ihgfedcba".find(i)) for i in "abcdefghij"}  # trec_eval puts the larger name first among equals
    qrels = {str(u): {better[i] + i: 1 for i in wanted} for u, (_, _, wanted) in enumerate(users)}
    run = {user: {"none": -9.0} for user in qrels}
    for u, i, score in lists:
        run[str(u)][better[i] + i] = score
    names = {"recall": ir_measures.R, "ndcg": ir_measures.nDCG, "precision": ir_measures.P, "map": ir_measures.AP}
    theirs = ir_measures.calc_aggregate([measure @ k for measure in names.values()], qrels, run)
    for name, measure in names.items():
        assert ours[f"{name}@{k}"] == pytest.approx(theirs[measure @ k], abs=1e-9), name
    assert ours["num_users"] == len(users)
    assert ours["num_users_without_recommendations"] == sum(not items for items, _, _ in users)


def test_a_table_with_every_fault_is_refused_with_all_of_them():
    broken = pl.DataFrame(
        {
            "user": ["u", "u", "u", None, "v", "w"],
            "item": ["a", "a", "b", "c", None, "d"],
            "rank": [1.0, 2.0, 2.0, 1.0, float("nan"), 4.0],
        }
    )
    told = {problem.what: problem.count for problem in refusals(broken)}
    assert told == {
        "user is null": 1,
        "item is null": 1,
        "an item is repeated for a user": 1,
        "rank is null or NaN": 1,
        "a user's ranks do not start at 1": 1,
        "a rank is repeated for a user": 1,
    }
    scored = broken.rename({"rank": "score"}).with_columns(rank=1)
    told = [problem.what for problem in refusals(scored, TRUTH.clear())]
    assert {"both 'score' and 'rank' are there", "score is null or NaN", "the table is empty"} <= set(told)
