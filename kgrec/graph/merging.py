"""Several graphs as one: same-as, repeated triples, conflicts of functional relations. All on ids, not on rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kgrec.columns import (
    ENTITY,
    HEAD,
    HEAD_IS_ITEM,
    KNOWN_AT,
    RELATION,
    SOURCE,
    TAIL,
    WEIGHT,
)

SAME_AS: Final = "http://www.w3.org/2002/07/owl#sameAs"


class MergingConfig(BaseModel):
    """How several graphs become one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    same_as: tuple[str, ...] = Field(
        (SAME_AS,), description="relations that say that two ids are one entity; the first id in the data stays"
    )
    inverses: Literal["keep", "merge"] = Field(
        "keep",
        description="\"merge\": of two relations that are each other's inverse only the first stays, the other's "
        "triples are turned around; of a symmetric relation each pair stays once",
    )
    agreement: float = Field(
        0.8, gt=0.0, le=1.0,
        description="share of the triples (0-1) that must have their counterpart for two relations to be inverse, or "
        "one to be symmetric",
    )  # fmt: skip
    functional: tuple[str, ...] = Field(
        (), description="relations that have one tail a head, such as a year of birth; two are a conflict"
    )
    conflicts: Literal["keep", "first", "heaviest", "drop"] = Field(
        "keep",
        description="what stays of a conflict: all, the first in the data, the one of the greatest weight, or nothing",
    )


def merge_same(
    triples: pl.DataFrame, links: pl.DataFrame | None, labels: pl.DataFrame, same_as: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame | None, pl.DataFrame, int]:
    """Give the ids that `same_as` relations tie together one id: that of them which comes first in the triples.

    Returns triples (without the same-as ones, each once again), links, labels, and how many ids went. Ties are
    transitive and have no direction.
    """
    says = pl.col(RELATION).is_in(list(same_as)) & ~pl.col(HEAD_IS_ITEM)
    ties = triples.filter(says)
    if ties.is_empty():
        return triples, links, labels, 0
    ends = pl.concat([ties[HEAD], ties[TAIL]]).unique(maintain_order=True).alias(ENTITY)
    order = pl.concat([triples.select(HEAD, TAIL).with_row_index("at").unpivot(index="at", value_name=ENTITY)])
    order = order.sort("at", "variable", maintain_order=True).select(ENTITY).unique(maintain_order=True)
    nodes = order.join(ends.to_frame(), on=ENTITY, how="semi", maintain_order="left").with_row_index("node")
    number = dict(zip(nodes[ENTITY], nodes["node"], strict=True))
    heads = np.array([number[head] for head in ties[HEAD]])
    tails = np.array([number[tail] for tail in ties[TAIL]])
    size = nodes.height
    _, group = connected_components(
        coo_array((np.ones(len(heads)), (heads, tails)), shape=(size, size)), directed=False
    )
    first = nodes.with_columns(pl.Series("group", group)).with_columns(
        pl.col(ENTITY).first().over("group").alias("new")
    )
    names = first.filter(pl.col(ENTITY) != pl.col("new")).select(ENTITY, "new")
    tail = _renamed(triples.filter(~says), TAIL, names)
    is_head = pl.col(HEAD_IS_ITEM)
    both = _renamed(tail.with_columns(pl.col(HEAD).alias("__head__")), HEAD, names).with_columns(
        pl.when(is_head).then("__head__").otherwise(HEAD).alias(HEAD)
    )
    merged = once(both.select(triples.columns), [HEAD, RELATION, TAIL, HEAD_IS_ITEM])
    linked = None if links is None else _renamed(links, ENTITY, names).unique(maintain_order=True)
    named = _renamed(labels, ENTITY, names).unique(ENTITY, keep="first", maintain_order=True)
    return merged, linked, named, names.height


def _renamed(frame: pl.DataFrame, column: str, names: pl.DataFrame) -> pl.DataFrame:
    joined = frame.join(names.rename({ENTITY: column}), on=column, how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce("new", column).alias(column)).select(frame.columns)


def once(frame: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Return each triple once, in order, with the source of its first, the greatest weight and the earliest instant.

    A triple that one row says was always known (`known_at` null) was always known.
    """
    if repeated(frame.select(pl.struct(key).hash(seed=0)).to_series()).is_empty():
        return frame  # all hashes differ, so all keys do: the usual case, at a fraction of the cost
    distinct = frame.unique(list(key), keep="first", maintain_order=True)
    differ = (pl.col(WEIGHT) != 1).any() | pl.col(KNOWN_AT).is_not_null().any()
    if distinct.height == frame.height or not frame.select(differ).item():
        return distinct
    since = pl.when(pl.col(KNOWN_AT).is_not_null().all()).then(pl.col(KNOWN_AT).min())
    merged = frame.group_by(list(key)).agg(pl.col(WEIGHT).max(), since.alias(KNOWN_AT))
    whole = distinct.drop(WEIGHT, KNOWN_AT).join(merged, on=list(key), how="left", maintain_order="left")
    return whole.select(frame.columns)


def repeated(numbers: pl.Series) -> pl.Series:
    """Return the whole numbers that occur more than once, ascending; none may be null.

    >>> repeated(pl.Series([3, 1, 3, 2, 1])).to_list()
    [1, 3]
    """
    ordered = np.sort(numbers.to_numpy())
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    return pl.Series(numbers.name, again[run_starts(again)], dtype=numbers.dtype)


def run_starts(ordered: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return where each run of equal numbers begins.

    >>> run_starts(np.array([1, 1, 4, 5, 5])).tolist()
    [0, 2, 3]
    """
    return np.flatnonzero(np.concatenate([np.ones(min(len(ordered), 1), bool), ordered[1:] != ordered[:-1]]))


def settle_conflicts(
    triples: pl.DataFrame, functional: Sequence[str], keep: Literal["keep", "first", "heaviest", "drop"]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the triples with the conflicts of functional relations settled, and all triples that were in conflict.

    The latter have a column `kept`. Of equally heavy triples the first in the data stays.
    """
    key = [HEAD, RELATION, HEAD_IS_ITEM]
    numbered = triples.with_row_index("at")
    several = numbered.filter(pl.col(RELATION).is_in(list(functional))).filter(pl.col(TAIL).n_unique().over(key) > 1)
    if keep == "keep":
        stays = several.with_columns(pl.lit(True).alias("kept"))
    elif keep == "drop":
        stays = several.with_columns(pl.lit(False).alias("kept"))
    else:
        ranked = several if keep == "first" else several.sort([WEIGHT, "at"], descending=[True, False])
        stays = ranked.with_columns(pl.struct(key).is_first_distinct().alias("kept")).sort("at")
    gone = stays.filter(~pl.col("kept"))["at"]
    settled = triples if gone.is_empty() else numbered.filter(~pl.col("at").is_in(gone.implode())).drop("at")
    return settled, stays.select(HEAD, RELATION, TAIL, SOURCE, WEIGHT, "kept")


def conflict_facts(conflicts: pl.DataFrame) -> dict[str, Any]:
    """Return counts for people, with an example."""
    if conflicts.is_empty():
        return {"conflicts": 0}
    head, relation = conflicts.row(0)[:2]
    tails = conflicts.filter((pl.col(HEAD) == head) & (pl.col(RELATION) == relation))[TAIL].to_list()
    number = conflicts.select(HEAD, RELATION).unique().height
    return {"conflicts": number, "example_of_conflict": f"{head} {relation} {' | '.join(tails[:4])}"}
