"""What each relation of a graph is like: coverage, fan-out, inverse and symmetric relations, and merging those.

Triples are rows: head_row, relation_row, tail_row; nodes below `num_items` are items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kgrec.columns import HEAD_ROW, PART, RELATION_ROW, ROW_TYPE, TAIL_ROW, TRAIN
from kgrec.graph.merging import once, run_starts

INVERSE_OF: Final = "inverse_of"
SYMMETRIC: Final = "symmetric"
KEY: Final = (HEAD_ROW, RELATION_ROW, TAIL_ROW)
_NODE: Final = 2**32 - 1


def describe_relations(triples: pl.DataFrame, num_items: int, agreement: float) -> pl.DataFrame:
    """Return a row a relation, the largest first.

    triples, heads, tails; fan_out (mean tails a head) and fan_out_max; fan_in, fan_in_max the other way; items: share
    of the items (0-1) at either end; single_tail: share of the heads with one tail; symmetric: share of the triples
    whose reverse has the same relation; inverse_of: the relation that is its inverse, null where none is.
    """
    heads, tails = (_keys(triples, end) for end in (HEAD_ROW, TAIL_ROW))
    per_head, per_tail = _fan(heads), _fan(tails)
    item_ends = np.sort(np.concatenate([keys[keys & _NODE < num_items] for keys in (heads, tails)]))
    covered = (
        pl.DataFrame({RELATION_ROW: item_ends[run_starts(item_ends)] >> 32}).group_by(RELATION_ROW).len("item_count")
    )
    covered = covered.cast({RELATION_ROW: ROW_TYPE})
    counterparts = _counterparts(triples)
    sizes = per_head.select(RELATION_ROW, "triples")
    symmetric = counterparts.filter(pl.col(RELATION_ROW) == pl.col("other")).select(
        RELATION_ROW, pl.col("len").alias("reversed")
    )
    return (
        per_head.rename({"nodes": "heads", "mean": "fan_out", "most": "fan_out_max", "single": "single_tail"})
        .join(per_tail.select(RELATION_ROW, tails="nodes", fan_in="mean", fan_in_max="most"), on=RELATION_ROW)
        .join(covered, on=RELATION_ROW, how="left")
        .join(symmetric, on=RELATION_ROW, how="left")
        .join(_inverses(counterparts, sizes, agreement), on=RELATION_ROW, how="left")
        .select(
            RELATION_ROW, "triples", "heads", "tails", "fan_out", "fan_out_max", "fan_in", "fan_in_max",
            (pl.col("item_count").fill_null(0) / max(num_items, 1)).alias("items"), "single_tail",
            (pl.col("reversed").fill_null(0) / pl.col("triples")).alias(SYMMETRIC), INVERSE_OF,
        )
        .sort(["triples", RELATION_ROW], descending=[True, False])
    )  # fmt: skip


def _keys(triples: pl.DataFrame, end: str) -> NDArray[np.int64]:
    """Relation and node of each triple as one number, ascending; numbers sort many times faster than they hash."""
    key = pl.col(RELATION_ROW).cast(pl.Int64) * 2**32 + pl.col(end)
    return np.sort(triples.select(key).to_series().to_numpy())


def _fan(keys: NDArray[np.int64]) -> pl.DataFrame:
    """A row a relation: triples, distinct nodes, triples a node on average and at most, share of nodes with one."""
    starts = run_starts(keys)
    counts = np.diff(starts, append=len(keys))
    relation = keys[starts] >> 32
    first = run_starts(relation)
    nodes, triples = np.diff(first, append=len(starts)), np.add.reduceat(counts, first) if len(first) else first
    most, ones = (
        (np.maximum.reduceat(counts, first), np.add.reduceat(counts == 1, first)) if len(first) else (first,) * 2
    )
    return pl.DataFrame({
        RELATION_ROW: relation[first], "triples": triples, "nodes": nodes, "mean": triples / np.maximum(nodes, 1),
        "most": most, "single": ones / np.maximum(nodes, 1),
    }).cast({RELATION_ROW: ROW_TYPE, **dict.fromkeys(("triples", "nodes", "most"), pl.UInt32)})  # fmt: skip


def _counterparts(triples: pl.DataFrame) -> pl.DataFrame:
    """(relation, other, len): how many triples of a relation have their reverse in the other; loops do not count."""
    low, high = pl.min_horizontal(HEAD_ROW, TAIL_ROW), pl.max_horizontal(HEAD_ROW, TAIL_ROW)
    pair, forth = low.cast(pl.Int64) * 2**31 + high, pl.col(HEAD_ROW) < pl.col(TAIL_ROW)
    plain = triples.lazy().filter(pl.col(HEAD_ROW) != pl.col(TAIL_ROW))
    ways = np.sort(plain.select(pair * 2 + forth).collect().to_series().to_numpy())
    both = np.unique(ways[1:][(ways[1:] == ways[:-1] + 1) & (ways[1:] % 2 == 1)] // 2)
    known = pl.DataFrame({"pair": pl.Series(both, dtype=pl.Int64)}).lazy()
    two_way = plain.select(pair.alias("pair"), RELATION_ROW, forth.alias("forth")).join(known, on="pair", how="semi")
    turned = two_way.select("pair", ~pl.col("forth"), pl.col(RELATION_ROW).alias("other"))
    return two_way.join(turned, on=["pair", "forth"]).group_by(RELATION_ROW, "other").len().collect()


def _inverses(counterparts: pl.DataFrame, sizes: pl.DataFrame, agreement: float) -> pl.DataFrame:
    size = sizes.select(pl.col(RELATION_ROW).alias("other"), pl.col("triples").alias("other_triples"))
    pairs = counterparts.filter(pl.col(RELATION_ROW) != pl.col("other")).join(sizes, on=RELATION_ROW)
    share = pl.col("len") / pl.max_horizontal("triples", "other_triples")
    found = pairs.join(size, on="other").with_columns(share.alias("share")).filter(pl.col("share") >= agreement)
    best = found.sort(["share", "other"], descending=[True, False]).unique(RELATION_ROW, keep="first")
    return best.select(RELATION_ROW, pl.col("other").alias(INVERSE_OF))


def merge_inverses(triples: pl.DataFrame, report: pl.DataFrame, agreement: float) -> pl.DataFrame:
    """Return the triples with one direction of each fact.

    Of two inverse relations the one with the smaller row stays, and the other's triples are turned around; of a
    symmetric relation each pair is kept from the smaller node to the larger. Repeated triples stay once, the first.
    """
    into = {
        row[RELATION_ROW]: row[INVERSE_OF]
        for row in report.iter_rows(named=True)
        if row[INVERSE_OF] is not None and row[INVERSE_OF] < row[RELATION_ROW]
    }
    both_ways = report.filter(pl.col(SYMMETRIC) >= agreement)[RELATION_ROW]
    relation = pl.col(RELATION_ROW)
    turn = relation.is_in(list(into)) | (relation.is_in(both_ways.implode()) & (pl.col(HEAD_ROW) > pl.col(TAIL_ROW)))
    turned = triples.with_columns(
        pl.when(turn).then(TAIL_ROW).otherwise(HEAD_ROW).alias(HEAD_ROW),
        pl.when(turn).then(HEAD_ROW).otherwise(TAIL_ROW).alias(TAIL_ROW),
        relation.replace(into).cast(ROW_TYPE) if into else relation,
    )
    return once(turned, KEY)


def inverses_across_parts(triples: pl.DataFrame, report: pl.DataFrame, agreement: float) -> pl.DataFrame:
    """Return how many held-out triples stand in train the other way round: relation_row, other_row, len, most first.

    triples: with part; report: see `describe_relations`. The other way round is the relation's inverse, or the
    relation itself where it is symmetric: to tell such a triple again is no prediction.
    """
    symmetric = report.filter(pl.col(SYMMETRIC) >= agreement).with_columns(pl.col(RELATION_ROW).alias("other_row"))
    inverse = report.filter(pl.col(INVERSE_OF).is_not_null()).with_columns(pl.col(INVERSE_OF).alias("other_row"))
    others = pl.concat([one.select(RELATION_ROW, "other_row").cast(ROW_TYPE) for one in (symmetric, inverse)])
    held = triples.filter(pl.col(PART) != TRAIN).join(others, on=RELATION_ROW)
    known = triples.filter(pl.col(PART) == TRAIN).select(
        pl.col(TAIL_ROW).alias(HEAD_ROW), pl.col(RELATION_ROW).alias("other_row"), pl.col(HEAD_ROW).alias(TAIL_ROW)
    )
    told = held.join(known, on=[HEAD_ROW, "other_row", TAIL_ROW], how="semi")
    return (
        told.group_by(RELATION_ROW, "other_row")
        .len()
        .sort(["len", RELATION_ROW, "other_row"], descending=[True, False, False])
    )


def inverse_facts(found: pl.DataFrame | None, names: Sequence[str]) -> dict[str, Any]:
    """Return counts for people: of all held-out triples that train says the other way round, and by relation."""
    if found is None or found.is_empty():
        return {"inverse_pairs_across_parts": 0}
    by_relation = {f"{names[one]} / {names[other]}": count for one, other, count in found.head(10).iter_rows()}
    return {"inverse_pairs_across_parts": int(found["len"].sum()), "inverse_pairs_by_relation": by_relation}


def coverage(triples: pl.DataFrame, num_items: int) -> dict[str, Any]:
    """Return counts for people about how far the graph reaches: items without any triple, fan-out of the items.

    fan_out_of_items: mean, median and maximum number of triples an item has.
    """
    ends = pl.concat([triples[HEAD_ROW], triples[TAIL_ROW]]).alias("node").to_frame().filter(pl.col("node") < num_items)
    per_item = ends.group_by("node").len("degree")["degree"]
    filled = pl.concat([per_item.cast(pl.Int64), pl.zeros(num_items - per_item.len(), pl.Int64, eager=True)])
    if not num_items:
        return {"items_without_triples": 0}
    spread = {"mean": float(filled.mean() or 0), "median": float(filled.median() or 0), "max": int(filled.max() or 0)}  # type: ignore[arg-type]
    return {"items_without_triples": num_items - per_item.len(), "fan_out_of_items": spread}
