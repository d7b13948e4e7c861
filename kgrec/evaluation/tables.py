"""Judge any system's table of recommendations with the metrics that kgrec's own models get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl
import torch

from kgrec.columns import ITEM, RANK, ROW, SCORE, USER
from kgrec.errors import InputError, Problem
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.ranking import EMPTY, metrics_per_user, summarise

_RECOMMENDATIONS: Final = "recommendations"
_TRUTH: Final = "truth"


def evaluate_tables(recommendations: pl.DataFrame, truth: pl.DataFrame, k: int | Sequence[int]) -> dict[str, float]:
    """Return the ranking metrics of a table of recommendations against a table of relevant items.

    recommendations: user, item and either score (higher is better; ties by the item's text) or rank (from 1; a rank
    that is not there is an empty place). truth: user, item; a pair named twice counts once. Ids are compared as text.
    A user of the truth without recommendations counts as zero (num_users_without_recommendations says how many); a
    user without truth is left out of the means and counted in num_users_without_relevant.
    InputError names every fault of both tables at once.

    >>> lists = pl.DataFrame({"user": [1, 1], "item": ["a", "b"], "score": [0.1, 0.9]})
    >>> evaluate_tables(lists, pl.DataFrame({"user": ["1"], "item": ["b"]}), k=1)["recall@1"]
    1.0
    """
    lengths = [k] if isinstance(k, int) else list(k)
    problems = [*_length_problems(lengths), *_recommendation_problems(recommendations), *_truth_problems(truth)]
    if problems:
        raise InputError(problems)
    lists = _as_ranks(_with_text_ids(recommendations))
    wanted = _with_text_ids(truth).select(USER, ITEM)
    users = pl.concat([wanted[USER], lists[USER]]).unique().sort()
    items = pl.concat([wanted[ITEM], lists[ITEM]]).unique().sort()
    relevant = Pairs.of(_rows(wanted[USER], users), _rows(wanted[ITEM], items), len(users), len(items))
    shown = lists.filter(pl.col(RANK) <= max(lengths))
    top_BK = torch.full((len(users), max(lengths)), EMPTY, dtype=torch.int64)
    top_BK[_rows(shown[USER], users), torch.from_numpy(shown[RANK].to_numpy().copy()) - 1] = _rows(shown[ITEM], items)
    metrics = summarise(metrics_per_user(top_BK, relevant, lengths), len(users))
    without = wanted.select(USER).unique().join(lists.select(USER).unique(), on=USER, how="anti").height
    return metrics | {"num_users_without_recommendations": without}


def _rows(ids: pl.Series, sorted_ids: pl.Series) -> torch.Tensor:
    """Return the place of each id among the sorted ids."""
    known = pl.DataFrame({"id": sorted_ids}).with_row_index(ROW)
    found = pl.DataFrame({"id": ids}).join(known, on="id", how="left", maintain_order="left")
    return torch.from_numpy(found[ROW].cast(pl.Int64).to_numpy().copy())


def _with_text_ids(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.col(USER, ITEM).cast(pl.String))


def _as_ranks(lists: pl.DataFrame) -> pl.DataFrame:
    if RANK in lists.columns:
        return lists.select(USER, ITEM, pl.col(RANK).cast(pl.Int64))
    ordered = lists.sort([USER, SCORE, ITEM], descending=[False, True, False], maintain_order=True)
    return ordered.select(USER, ITEM, (pl.int_range(pl.len()).over(USER) + 1).alias(RANK))


def _length_problems(lengths: Sequence[int]) -> list[Problem]:
    if lengths and all(length >= 1 for length in lengths):
        return []
    return [Problem("k", f"list lengths of 1 or more wanted, got {list(lengths)}", "give lengths such as 10,20")]


def _missing_columns(where: str, table: pl.DataFrame, needed: Sequence[str]) -> list[Problem]:
    there = ", ".join(table.columns) or "none"
    return [
        Problem(where, f"no column {name!r}", f"name a column {name!r}; the table has: {there}")
        for name in needed
        if name not in table.columns
    ]


def _faulty_rows(where: str, table: pl.DataFrame, faulty: pl.Expr, what: str, remedy: str) -> list[Problem]:
    """Return one problem for the rows that `faulty` marks, or none."""
    rows = table.filter(faulty)
    if rows.is_empty():
        return []
    example = ", ".join(f"{name}={value!r}" for name, value in rows.row(0, named=True).items())
    return [Problem(where, what, remedy, count=rows.height, example=example)]


def _null_ids(where: str, table: pl.DataFrame) -> list[Problem]:
    return [
        problem
        for name in (USER, ITEM)
        if name in table.columns
        for problem in _faulty_rows(
            where, table, pl.col(name).is_null(), f"{name} is null", f"fill in the {name} or leave the row out"
        )
    ]


def _truth_problems(truth: pl.DataFrame) -> list[Problem]:
    problems = _missing_columns(_TRUTH, truth, (USER, ITEM)) + _null_ids(_TRUTH, truth)
    if truth.is_empty():
        problems.append(Problem(_TRUTH, "the table is empty", "give at least one relevant user, item pair"))
    return problems


def _recommendation_problems(table: pl.DataFrame) -> list[Problem]:
    where = _RECOMMENDATIONS
    problems = _missing_columns(where, table, (USER, ITEM)) + _null_ids(where, table)
    orders = [name for name in (SCORE, RANK) if name in table.columns]
    if len(orders) != 1:
        what = "both 'score' and 'rank' are there" if orders else "neither 'score' nor 'rank' is there"
        problems.append(Problem(where, what, "give the order once: a score (higher is better) or a rank (from 1)"))
    if USER in table.columns and ITEM in table.columns:
        text = _with_text_ids(table)
        repeated = ~pl.struct(USER, ITEM).is_first_distinct() & pl.col(USER).is_not_null() & pl.col(ITEM).is_not_null()
        problems += _faulty_rows(where, text, repeated, "an item is repeated for a user", "name an item once a user")
    for name in orders:
        problems += _order_problems(table, name)
    return problems


def _order_problems(table: pl.DataFrame, name: str) -> list[Problem]:
    where = _RECOMMENDATIONS
    if not table.schema[name].is_numeric() and not table.is_empty():
        example = f"{name}={table[name][0]!r}"
        return [
            Problem(where, f"{name} is no number but {table.schema[name]}", f"write {name} as numbers", example=example)
        ]
    value = pl.col(name)
    bad = value.is_null() | value.cast(pl.Float64).is_nan()
    problems = _faulty_rows(
        where, table, bad, f"{name} is null or NaN", f"give every row a {name} or leave the row out"
    )
    if name == SCORE:
        return problems
    whole = table.filter(~bad)
    no_place = (value < 1) | (value.cast(pl.Float64) % 1 != 0)
    problems += _faulty_rows(where, whole, no_place, "rank is no whole number from 1", "count ranks 1, 2, 3, ...")
    if USER not in table.columns:
        return problems
    by_user = whole.with_columns(pl.col(USER).cast(pl.String))
    first = by_user.group_by(USER, maintain_order=True).agg(value.min())
    problems += _faulty_rows(
        where, first, value > 1, "a user's ranks do not start at 1", "count each user's ranks from 1"
    )
    repeated = ~pl.struct(USER, name).is_first_distinct() & pl.col(USER).is_not_null()
    return problems + _faulty_rows(
        where, by_user, repeated, "a rank is repeated for a user", "give each item its own rank"
    )
