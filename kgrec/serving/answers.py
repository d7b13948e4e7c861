"""Answers to single requests: one version, asked by ids, without tables on the way.

Axes: D dimensions, H items of a history, K answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from kgrec import columns as c
from kgrec.errors import InputError, Problem
from kgrec.serving.explained import explained
from kgrec.serving.filters import ItemFilter
from kgrec.serving.index import Rows
from kgrec.serving.recommend import Version
from kgrec.serving.schema import Order
from kgrec.serving.standing import Standing

_CANDIDATES: Final = 200
_COMPARED: Final = 5000
_COMPARED_LENGTH: Final = 64


class UnknownItemError(InputError):
    """The item is not in the catalogue of the version."""


class Answerer:
    """Answers requests from one version; every answer names it. Loading it warms what would be made on first use."""

    def __init__(self, version: Version) -> None:
        self.version, self.number = version, version.number
        self._ids: list[str] = version.items.entries.to_list()
        self._catalogue = frozenset(version.catalogue_rows.tolist())
        self._titles = pl.Series([version.title(row) for row in version.catalogue_rows.tolist()], dtype=pl.String)
        self._folded_titles = self._titles.str.to_lowercase()
        self._filter = ItemFilter(version.artifact, len(self._ids))
        self.recommend(user=next(iter(version.users.entries), ""), k=1, explain=True)

    @property
    def attributes(self) -> list[str]:
        """What a filter may name."""
        return self._filter.attributes

    def recommend(
        self, *, user: object = None, history: Sequence[object] | None = None, k: int = 10,
        exclude: Sequence[object] = (), conditions: Mapping[str, Any] | None = None, explain: bool = False,
        order: Order = Order.RETRIEVAL, context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the top k items of a user of the log, or of a stranger's history (item ids, oldest first).

        conditions: see `ItemFilter.flags`. order: a probability of the towers sorts the 200 (or k) nearest anew, with
        `context` as its columns. InputError names unknown attributes, missing columns, and what was not learned.
        """
        unknown: list[str] = []
        if history is None:
            asked = self.version.ask(_text(user))
        else:
            rows_H, unknown = self._rows(history)
            asked = self.version.ask_history(rows_H)
        left_out, _ = self._rows(exclude)
        only_I = self._filter.flags(conditions) if conditions else None
        wanted = k if order is Order.RETRIEVAL else max(k, _CANDIDATES)
        rows_K, scores_K = self.version.top(asked, wanted, left_out if len(left_out) else None, only_I)
        found = list(zip(rows_K.tolist(), scores_K.tolist(), strict=True))
        if order is not Order.RETRIEVAL:
            found = self._second_stage(user, found, order, context or {})[:k]
        items = [self._item(row, score) for row, score in found]
        if explain:
            rows_E = np.array([row for row, _ in found], dtype=np.int64)
            scores_E = np.array([score for _, score in found], dtype=np.float32)
            for item, reason in zip(items, self.version.reasons(asked, rows_E, scores_E), strict=True):
                item["reason"] = reason
        fallback = Standing.POPULARITY.value if asked.standing is Standing.POPULARITY else None
        return {"version": self.number, "user": None if history is not None else _text(user),
                "based_on": asked.standing.value, "fallback": fallback, "unknown_items": unknown,
                "items": items}  # fmt: skip

    def similar(self, item: object, k: int = 10, conditions: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the k nearest items; UnknownItemError when the item is not in the catalogue."""
        row = self._catalogue_row(item)
        only_I = self._filter.flags(conditions) if conditions else None
        rows_K, scores_K = self.version.near(row, k, only_I)
        items = [self._item(near, score) for near, score in zip(rows_K.tolist(), scores_K.tolist(), strict=True)]
        return {"version": self.number, "item": self._ids[row], "title": self._title(row), "items": items}

    def score(self, user: object, items: Sequence[object], context: Mapping[str, Any]) -> dict[str, Any]:
        """Return click, conversion and both of each item, in order, as far as the version learned them."""
        ids = [_text(item) for item in items]
        found = self.version.score(_requests(_text(user), ids, context)).drop(c.USER, c.ITEM).to_dicts()
        known = self.version.item_rows
        scored = [{"item": item, "known": item in known, **row} for item, row in zip(ids, found, strict=True)]
        return {"version": self.number, "user": _text(user), "items": scored}

    def explain(self, user: object, item: object) -> dict[str, Any]:
        """Return why an item has its score for a user: parts, history, paths and their picture (see `explained`)."""
        return explained(self.version, _text(user), self._catalogue_row(item))

    def find(self, text: str, k: int = 10) -> dict[str, Any]:
        """Return up to k items whose id is the text or whose title holds it, whatever the case; shorter titles first.

        score: 1 for the id itself, else the part of the title that the text makes up.
        """
        wanted = text.strip().lower()
        own = self.version.item_rows.get(text.strip())
        items = [self._item(own, 1.0)] if own in self._catalogue and own is not None else []
        if wanted:
            places = self._folded_titles.str.contains(wanted, literal=True).arg_true().to_list()
            places = sorted(places, key=lambda place: (len(self._titles[place]), place))[: k + 1]
            rows = self.version.catalogue_rows
            items += [
                self._item(int(rows[place]), len(wanted) / len(self._titles[place]))
                for place in places if int(rows[place]) != own
            ]  # fmt: skip
        return {"version": self.number, "items": items[:k]}

    def _second_stage(
        self, user: object, found: Sequence[tuple[int, float]], order: Order, context: Mapping[str, Any]
    ) -> list[tuple[int, float]]:
        if not found:
            return []
        scored = self.version.score(_requests(_text(user), [self._ids[row] for row, _ in found], context))
        if order.value not in scored.columns:
            remedy = f"order by one of: {', '.join(scored.columns[2:])}, retrieval"
            raise InputError(Problem("order", f"this version did not learn {order.value}", remedy))
        chances = scored[order.value].to_list()
        best = sorted(range(len(found)), key=lambda place: (-chances[place], place))
        return [(found[place][0], chances[place]) for place in best]

    def _rows(self, ids: Sequence[object]) -> tuple[Rows, list[str]]:
        """Return the rows of the known ids in order, and the unknown ids."""
        known, rows, unknown = self.version.item_rows, [], []
        for item in map(_text, ids):
            if item in known:
                rows.append(known[item])
            else:
                unknown.append(item)
        return np.array(rows, dtype=np.int64), unknown

    def _catalogue_row(self, item: object) -> int:
        row = self.version.item_rows.get(_text(item))
        if row is None or row not in self._catalogue:
            raise UnknownItemError(self._unknown(_text(item)))
        return row

    def _unknown(self, item: str) -> Problem:
        """Say so, with the nearest id where the catalogue is small enough to compare while others wait."""
        if len(self._catalogue) <= _COMPARED and len(item) <= _COMPARED_LENGTH:
            return self.version.unknown_item(item)
        return Problem(f"item {item}", "not in the catalogue of this version", "name an item of the catalogue")

    def _title(self, row: int) -> str | None:
        return self.version.titles.get(row)

    def _item(self, row: int, score: float) -> dict[str, Any]:
        return {"item": self._ids[row], "title": self._title(row), "score": score}


def _requests(user: str, items: Sequence[str], context: Mapping[str, Any]) -> pl.DataFrame:
    clash = sorted({c.USER, c.ITEM} & set(context))
    if clash:
        raise InputError(Problem("context", f"a column called {clash[0]!r}", "name context columns only"))
    frame = pl.DataFrame(
        {c.USER: [user] * len(items), c.ITEM: list(items)}, schema={c.USER: pl.String, c.ITEM: pl.String}
    )
    return frame.with_columns(pl.lit(value).alias(name) for name, value in context.items())


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()
