"""Entities that several graphs know under different ids, as far as their names and their neighbours tell."""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from kgrec import columns as c

OTHER: Final = "other"
SHARED: Final = "shared_neighbours"
DUPLICATES_SCHEMA: Final = {
    c.ENTITY: pl.String(), OTHER: pl.String(), c.LABEL: pl.String(), SHARED: pl.Int64(), "same_role": pl.Boolean(),
}  # fmt: skip
_LARGEST_GROUP: Final = 10
_SHOWN: Final = 5


def likely_duplicates(triples: pl.DataFrame, nodes: pl.DataFrame, num_items: int) -> pl.DataFrame:
    """Return pairs of entities (DUPLICATES_SCHEMA) with one name and something else in common; nothing is merged.

    triples: head_row, relation_row, tail_row; nodes: node, id, label. Names are compared without case, accents and
    punctuation. In common is a neighbour (`shared_neighbours`), or the same end of a relation (`same_role`). Items are
    left out, as remakes share a title, and so are names that more than ten entities have, which are no names. The
    pair with most shared neighbours comes first; `entity` has the smaller row.
    """
    named = nodes.filter((pl.col("node") >= num_items) & pl.col(c.LABEL).is_not_null())
    named = named.select("node", c.ID, c.LABEL, _form(pl.col(c.LABEL)).alias("form")).filter(pl.col("form") != "")
    times = pl.len().over("form")
    alike = named.filter((times > 1) & (times <= _LARGEST_GROUP))
    if alike.is_empty():
        return pl.DataFrame(schema=DUPLICATES_SCHEMA)
    pairs = alike.join(alike, on="form", suffix="_2").filter(pl.col("node") < pl.col("node_2"))
    pairs = pairs.select("node", "node_2", c.LABEL, pl.col(c.ID).alias(c.ENTITY), pl.col(f"{c.ID}_2").alias(OTHER))
    around = _around(triples, alike["node"])
    neighbours, roles = around.select("node", "near").unique(), around.select("node", c.RELATION_ROW, "end").unique()
    shared = _in_common(pairs, neighbours, ["near"]).rename({"len": SHARED})
    role = _in_common(pairs, roles, [c.RELATION_ROW, "end"]).select("node", "node_2", pl.lit(True).alias("same_role"))
    found = pairs.join(shared, on=["node", "node_2"], how="left").join(role, on=["node", "node_2"], how="left")
    found = found.with_columns(pl.col(SHARED).fill_null(0).cast(pl.Int64), pl.col("same_role").fill_null(value=False))
    found = found.filter((pl.col(SHARED) > 0) | pl.col("same_role"))
    return found.sort([SHARED, "node", "node_2"], descending=[True, False, False]).select(*DUPLICATES_SCHEMA)


def duplicate_facts(found: pl.DataFrame) -> dict[str, Any]:
    """Return the number of pairs, and examples for people where there are any."""
    if found.is_empty():
        return {"likely_duplicates": 0}
    told = [f"{row[c.ENTITY]} and {row[OTHER]}, both {row[c.LABEL]!r}" for row in found.head(_SHOWN).to_dicts()]
    return {"likely_duplicates": found.height, "examples_of_duplicates": told}


def _form(text: pl.Expr) -> pl.Expr:
    plain = text.str.normalize("NFKD").str.replace_all(r"\p{M}", "").str.to_lowercase()
    return plain.str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars()


def _around(triples: pl.DataFrame, nodes: pl.Series) -> pl.DataFrame:
    """(node, near, relation_row, end) of every triple of these nodes."""
    ends = [
        triples.select(pl.col(one).alias("node"), pl.col(other).alias("near"), c.RELATION_ROW, pl.lit(one).alias("end"))
        for one, other in ((c.HEAD_ROW, c.TAIL_ROW), (c.TAIL_ROW, c.HEAD_ROW))
    ]
    return pl.concat(ends).join(nodes.to_frame(), on="node", how="semi")


def _in_common(pairs: pl.DataFrame, known: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """(node, node_2, len): how many rows of `known` both nodes of a pair have."""
    first = pairs.select("node", "node_2").join(known, on="node")
    second = known.rename({"node": "node_2"})
    return first.join(second, on=["node_2", *key], how="semi").group_by("node", "node_2").len()
