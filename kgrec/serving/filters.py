"""Which items a condition lets through: side features of items and relations of the graph, as flags per item row.

Axes: I item rows of the vocabulary.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import InputError, Problem, nearest
from kgrec.graph.knowledge_graph import NODE
from kgrec.serving import package
from kgrec.serving.score import ITEM_FEATURES

Flags = npt.NDArray[np.bool_]
_KEPT: Final = 256
_VALUE: Final = "value"


class ItemFilter:
    """Turns conditions on attributes of items into flags.

    An attribute is a side feature of [items] or a relation of the graph, by its whole name or, where only one has it,
    its last word (`film.film.genre` is `genre`, too). A value of a relation is an entity's id or its label.
    """

    def __init__(self, artifact: Artifact, num_items: int) -> None:
        self._num_items = num_items
        self._tables: dict[str, pl.DataFrame] = {}
        relations = Vocabulary.load(artifact.file(package.RELATIONS)).entries.to_list()
        self._triples = pl.read_parquet(artifact.file(package.GRAPH_TRIPLES))
        self._nodes = pl.read_parquet(artifact.file(package.GRAPH_NODES)).select(NODE, c.ID, c.LABEL)
        present = set(self._triples[c.RELATION_ROW].unique().to_list())
        self._names = _names({row: name for row, name in enumerate(relations) if row in present})
        self._features = pl.DataFrame({c.ITEM_ROW: []}, schema={c.ITEM_ROW: c.ROW_TYPE})
        if artifact.has(ITEM_FEATURES):
            self._features = pl.read_parquet(artifact.file(ITEM_FEATURES))
        self._flags: OrderedDict[str, Flags] = OrderedDict()

    @property
    def attributes(self) -> list[str]:
        """The names that a condition may use, sorted."""
        return sorted({*self._names, *(name for name in self._features.columns if name != c.ITEM_ROW)})

    def flags(self, conditions: Mapping[str, Any]) -> Flags:
        """Return one flag per item row: whether all conditions let the item through.

        A condition is a value, a list of values of which one must hold, or {"min": x, "max": y}, both included.
        Values are compared as text, numbers also as numbers. InputError names every attribute that is unknown.
        """
        problems = [self._unknown(name) for name in conditions if name not in self.attributes]
        if problems:
            raise InputError(problems)
        key = json.dumps(conditions, sort_keys=True)
        if key in self._flags:
            self._flags.move_to_end(key)
            return self._flags[key]
        flags_I = np.ones(self._num_items, dtype=bool)
        for name, condition in conditions.items():
            flags_I &= self._one(name, condition)
        self._flags[key] = flags_I
        if len(self._flags) > _KEPT:
            self._flags.popitem(last=False)
        return flags_I

    def _one(self, name: str, condition: Any) -> Flags:
        table = self._table(name)
        if isinstance(condition, Mapping):
            numbers = table.with_columns(pl.col(_VALUE).cast(pl.Float64, strict=False)).drop_nulls(_VALUE)
            low, high = condition.get("min"), condition.get("max")
            bounds = [pl.lit(True)]
            bounds += [pl.col(_VALUE) >= low] if low is not None else []
            bounds += [pl.col(_VALUE) <= high] if high is not None else []
            rows = numbers.filter(pl.all_horizontal(bounds))[c.ITEM_ROW]
        else:
            values = condition if isinstance(condition, Sequence) and not isinstance(condition, str) else [condition]
            wanted = [_text(value) for value in values]
            rows = table.filter(pl.col(_VALUE).is_in(wanted))[c.ITEM_ROW]
        flags_I = np.zeros(self._num_items, dtype=bool)
        flags_I[rows.to_numpy()] = True
        return flags_I

    def _table(self, name: str) -> pl.DataFrame:
        """Return (item row, value as text) of an attribute."""
        if name not in self._tables:
            if name in self._features.columns and name != c.ITEM_ROW:
                self._tables[name] = _feature_values(self._features, name)
            else:
                self._tables[name] = self._relation_values(self._names[name])
        return self._tables[name]

    def _relation_values(self, relation_row: int) -> pl.DataFrame:
        edges = self._triples.filter(pl.col(c.RELATION_ROW) == relation_row)
        ways = [edges.select(pl.col(one).alias(c.ITEM_ROW), pl.col(other).alias(NODE))
                for one, other in ((c.HEAD_ROW, c.TAIL_ROW), (c.TAIL_ROW, c.HEAD_ROW))]  # fmt: skip
        ends = pl.concat(ways).filter(pl.col(c.ITEM_ROW) < self._num_items).unique(maintain_order=True)
        named = ends.join(self._nodes, on=NODE, how="left", maintain_order="left")
        by_id = named.select(c.ITEM_ROW, pl.col(c.ID).alias(_VALUE))
        by_label = named.select(c.ITEM_ROW, pl.col(c.LABEL).alias(_VALUE)).drop_nulls()
        return pl.concat([by_id, by_label]).unique(maintain_order=True)

    def _unknown(self, name: str) -> Problem:
        guess = nearest(name, self.attributes)
        known = ", ".join(self.attributes[:20]) or "none"
        remedy = f"did you mean {guess}?" if guess else f"known here: {known}"
        return Problem("filter", "no such attribute of items", remedy, example=name[:80])


def _names(relations: Mapping[int, str]) -> dict[str, int]:
    """Return whole names and those last words that only one relation has."""
    names = {name: row for row, name in relations.items()}
    short: dict[str, list[int]] = {}
    for row, name in relations.items():
        short.setdefault(name.rstrip("./#").replace("#", "/").replace(".", "/").split("/")[-1], []).append(row)
    return {word: rows[0] for word, rows in short.items() if len(rows) == 1} | names


def _feature_values(features: pl.DataFrame, name: str) -> pl.DataFrame:
    values = features.select(c.ITEM_ROW, pl.col(name).alias(_VALUE))
    if isinstance(values.schema[_VALUE], pl.List):
        values = values.explode(_VALUE)
    if values.schema[_VALUE].is_float():  # 1990.0 is "1990"
        whole = pl.col(_VALUE).cast(pl.Int64, strict=False)
        text = pl.when(pl.col(_VALUE) == whole).then(whole.cast(pl.String)).otherwise(pl.col(_VALUE).cast(pl.String))
        return values.with_columns(text.alias(_VALUE)).drop_nulls()
    return values.with_columns(pl.col(_VALUE).cast(pl.String)).drop_nulls()


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
