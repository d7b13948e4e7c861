"""Triples of ids as triples of rows: which ends are items, which are entities, and which of either is new.

Text is compared once: what follows works on the distinct ids, which are far fewer than the ends that name them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from kgrec import columns as c
from kgrec.data.vocabulary import Vocabulary

LINKED_TO: Final = "linked_to"


@dataclass(frozen=True)
class Known:
    """The vocabularies whose rows stand: all items, and the entities and relations that an earlier version knew."""

    items: Vocabulary
    entities: Vocabulary
    relations: Vocabulary


@dataclass(frozen=True)
class Claims:
    """Links of items to entities, (item, entity) each.

    merged: the only claim to an entity, which makes item and entity one node. shared: entities that several items
    claim; each stays a node of its own, tied to its items by the relation `linked_to`.
    """

    merged: pl.DataFrame
    shared: pl.DataFrame

    @classmethod
    def of(cls, links: pl.DataFrame | None, items: Vocabulary) -> Claims:
        """Sort links into both kinds; without any, an item's id is its entity's id."""
        if links is None:
            return cls(pl.DataFrame({c.ITEM: items.entries, c.ENTITY: items.entries}), _NO_LINKS)
        claimed = links.with_columns(pl.col(c.ITEM).n_unique().over(c.ENTITY).alias("claims"))
        alone = pl.col("claims") == 1
        return cls(claimed.filter(alone).drop("claims"), claimed.filter(~alone).drop("claims"))


_NO_LINKS: Final = pl.DataFrame(schema=c.LINKS_SCHEMA)


def map_triples(
    triples: pl.DataFrame, claims: Claims, known: Known
) -> tuple[pl.DataFrame, Vocabulary, Vocabulary]:  # fmt: skip
    """Return the triples in rows of nodes and relations, and the vocabularies of entities and relations, grown.

    triples: columns.TRIPLES_SCHEMA and perhaps part. The result has head_row, relation_row, tail_row, and what else the
    triples say, in their order; the ties of shared entities come last. New ids are numbered as they first appear: those
    of all heads, then those of all tails.
    """
    every = pl.concat([triples, _ties(claims.shared, with_part=c.PART in triples.columns)])
    is_item = every[c.HEAD_IS_ITEM]
    (heads, tails), distinct = numbered([every[c.HEAD].filter(~is_item), every[c.TAIL]])
    item_of = claims.merged.unique(c.ENTITY, keep="first", maintain_order=True)
    linked = distinct.to_frame(c.ENTITY).join(item_of, on=c.ENTITY, how="left", maintain_order="left")[c.ITEM]
    entities = known.entities.grow(distinct.filter(linked.is_null()))
    offset = len(known.items)
    node = (
        pl.DataFrame({"item": known.items.rows(linked), "entity": entities.rows(distinct) + offset})
        .select(pl.coalesce("item", "entity").cast(c.ROW_TYPE))
        .to_series()
    )
    (said,), relations_said = numbered([every[c.RELATION]])
    relations = known.relations.grow(relations_said)
    head_rows = node.gather(heads)
    if is_item.any():
        own = known.items.rows(every[c.HEAD].filter(is_item))
        order = pl.concat([(~is_item).arg_true(), is_item.arg_true()]).arg_sort()
        head_rows = pl.concat([head_rows, own]).gather(order)
    rows = pl.DataFrame({
        c.HEAD_ROW: head_rows,
        c.RELATION_ROW: relations.rows(relations_said).gather(said),
        c.TAIL_ROW: node.gather(tails),
    })  # fmt: skip
    return rows.with_columns(every.select(_extra(triples))), entities, relations


def numbered(texts: Sequence[pl.Series]) -> tuple[list[pl.Series], pl.Series]:
    """Return a number for each text, and the distinct texts by number, numbered as they first appear. No text is null.

    >>> codes, distinct = numbered([pl.Series(["b", "a", "b"]), pl.Series(["c", "a"])])
    >>> [code.to_list() for code in codes], distinct.to_list()
    ([[0, 1, 0], [2, 1]], ['b', 'a', 'c'])
    """
    kind = pl.Categorical(pl.Categories.random())  # codes of its own, which several threads hand out in any order
    frames = pl.collect_all([text.to_frame("text").lazy().select(pl.col("text").cast(kind)) for text in texts])
    codes: list[np.ndarray[Any, Any]] = [frame["text"].to_physical().to_numpy() for frame in frames]
    size = max((int(code.max()) + 1 for code in codes if len(code)), default=0)
    end = sum(map(len, codes))
    first = np.full(size, end)
    for code in reversed(codes):
        first[code[::-1]] = np.arange(end - 1, end - 1 - len(code), -1)  # of repeated places the last value stays
        end -= len(code)
    order = np.argsort(first, kind="stable")
    rank = np.empty(size, np.uint32)
    rank[order] = np.arange(size, dtype=np.uint32)
    distinct = pl.concat([text.alias(c.ID) for text in texts]).gather(first[order])
    return [pl.Series(rank[code]) for code in codes], distinct


def _ties(shared: pl.DataFrame, *, with_part: bool) -> pl.DataFrame:
    return shared.select(
        pl.col(c.ITEM).alias(c.HEAD),
        pl.lit(LINKED_TO).alias(c.RELATION),
        pl.col(c.ENTITY).alias(c.TAIL),
        pl.lit(LINKED_TO).alias(c.SOURCE),
        pl.lit(True).alias(c.HEAD_IS_ITEM),
        pl.lit(1.0, pl.Float32).alias(c.WEIGHT),
        pl.lit(None, c.TIME_TYPE).alias(c.KNOWN_AT),
        *([pl.lit(None, dtype=c.PART_TYPE).alias(c.PART)] if with_part else []),
    )


def _extra(frame: pl.DataFrame) -> list[str]:
    return [c.WEIGHT, c.KNOWN_AT, c.SOURCE, *([c.PART] if c.PART in frame.columns else [])]
