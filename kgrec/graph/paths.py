"""Paths: what lies in the graph between an item and what the user had, hubs damped, in words for people.

A path goes from the item over at most two other nodes to an item of the history. Shapes: N nodes, X ends of edges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from kgrec import columns as c
from kgrec.graph.knowledge_graph import DEGREE, NODE
from kgrec.graph.names import relation_words
from kgrec.graph.review import ACCEPTED

WIDEST: Final = 200
"""A node that touches more others than this is no step on the way to a second node: it leads everywhere."""
_LONGER: Final = 0.5
_SHORT_TITLE: Final = 32
_EXAMPLES: Final = 6
_EXAMPLE: Final = "example"
INFERRED: Final = " [inferred]"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """A triple as it lies in the graph. inferred: a person accepted it, no source says it."""

    head: int
    relation_row: int
    tail: int
    inferred: bool


@dataclass(frozen=True)
class Path:
    """A way from an item to items of a history.

    via: the nodes between, the item's neighbour first; empty where the item and the history touch. steps: the triples
    from the item to the last of them. ends: the triple that leads on to each of `history`, most telling first.
    """

    via: tuple[int, ...]
    steps: tuple[Step, ...]
    ends: tuple[Step, ...]
    history: tuple[int, ...]
    weight: float

    @property
    def inferred(self) -> bool:
        """Whether a triple of it was accepted by a person and is in no source."""
        return any(step.inferred for step in (*self.steps, *self.ends[:1]))


class PathFinder:
    """Finds paths between an item and a history. Nodes are rows of the graph's node table."""

    def __init__(self, triples: pl.DataFrame, nodes: pl.DataFrame, relation_names: Sequence[str]) -> None:
        heads, tails = triples[c.HEAD_ROW].to_numpy(), triples[c.TAIL_ROW].to_numpy()
        inferred = is_inferred(triples)
        starts = np.concatenate([heads, tails])
        order = np.lexsort((np.concatenate([inferred] * 2), starts))  # what a source says comes first
        self._ends = np.concatenate([tails, heads])[order]
        self._triple = np.concatenate([np.arange(triples.height)] * 2)[order]
        self._offsets = np.searchsorted(starts[order], np.arange(nodes.height + 1))
        self._heads, self._tails, self._inferred = heads, tails, inferred
        self._relations = triples[c.RELATION_ROW].to_numpy()
        self._labels: list[str | None] = nodes[c.LABEL].to_list()
        self._names: list[str] = nodes[c.NAME if c.NAME in nodes.columns else c.ID].to_list()
        degrees = nodes.sort(NODE)[DEGREE].to_numpy()
        whole = max(np.log2(max(nodes.height, 2)), 1.0)
        self._rarity: Floats = np.clip(np.log2(max(nodes.height, 1) / (1.0 + degrees)) / whole, 0.0, None)
        self._relation_words = [relation_words(name) for name in relation_names]

    def paths(
        self, item: int, history: Sequence[int], limit: int = 2, weights: Sequence[float] | None = None
    ) -> list[Path]:
        """Return up to `limit` paths from the item to the history, the most telling first.

        weights: how much each item of the history counts, none below 0; all alike when None. weight of a path =
        sqrt(share of the weights that it reaches) * rarity of its commonest node * 0.5 a node beyond the first, where
        rarity = log(N / (1 + degree)) / log(N): what half of all nodes touch says little. Paths whose nodes all have a
        name come first; equal weights by node row. Of several paths to the same last node the shortest
        stays, then the one over the rarer node.
        """
        kept = [place for place, node in enumerate(history) if node != item]
        rows = np.asarray(history, dtype=np.int64)[kept]
        share = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64)[kept].clip(min=0.0)
        if not len(rows) or share.sum() <= 0:
            return []
        reach = _Reach(self, rows, share / share.sum())
        found: dict[tuple[int, ...], tuple[int, ...]] = {}
        last: set[int] = set()
        edges = self._edges(item)
        for place in edges:
            node = int(self._ends[place])
            if node == item or node in last:
                continue
            if reach.is_history[node] or reach.gain[node] > 0:
                last.add(node)
                found[(node,)] = (int(place),)
        for place in sorted(edges, key=self._telling):
            node = int(self._ends[place])
            around = self._edges(node)
            if node == item or reach.is_history[node] or len(around) > WIDEST:
                continue
            ends = self._ends[around]
            for second in around[(reach.gain[ends] > 0) & ~reach.is_history[ends] & (ends != item)]:
                end = int(self._ends[second])
                if end not in last:
                    last.add(end)
                    found[(node, end)] = (int(place), int(second))
        ordered = sorted(found, key=lambda nodes: self._order(nodes, reach))
        return [self._path(nodes, found[nodes], reach) for nodes in ordered[:limit]]

    @property
    def has_edges(self) -> bool:
        """Whether there is any triple."""
        return len(self._heads) > 0

    def name(self, node: int) -> str:
        """Return a node's label, or its id in short where nobody gave it one."""
        return self._labels[node] or self._names[node]

    def relation(self, row: int) -> str:
        """Return a relation's name as people read it."""
        return self._relation_words[row]

    def is_named(self, path: Path) -> bool:
        """Say whether every node between has a name for people."""
        return all(self._labels[node] is not None for node in path.via)

    def sentence(self, path: Path, titles: int = 1, longest: int | None = None) -> str:
        """Return a path in words, such as: genres Comedy as in "Babe" and 3 more. longest: most characters."""
        words = ", ".join(self._step_words(path, place) for place in range(len(path.via)))
        shown = [self.name(node) for node in path.history[:titles]]
        more = len(path.history) - len(shown)
        rest = (f" and {more} more" if more else "") + (INFERRED if path.inferred else "")
        start = f"{words} as in " if path.via else f"{self.relation(path.steps[0].relation_row)}: "
        if longest is not None:
            room = max(12, (longest - len(start) - len(rest)) // len(shown) - 4)
            shown = [shorter(title, min(room, _SHORT_TITLE)) for title in shown]
        text = start + ", ".join(f'"{title}"' for title in shown) + rest
        return text if longest is None else shorter(text, longest)

    def _step_words(self, path: Path, place: int) -> str:
        return f"{self.relation(path.steps[place].relation_row)} {self.name(path.via[place])}"

    def _order(self, nodes: tuple[int, ...], reach: _Reach) -> tuple[bool, float, tuple[int, ...], tuple[int, ...]]:
        """Order ways by what they tell: all nodes between named, then the weight, then rows."""
        if reach.is_history[nodes[-1]]:
            return False, -self._weight(nodes, reach), (), nodes
        nameless = any(self._labels[node] is None for node in nodes)
        return nameless, -self._weight(nodes, reach), nodes, ()  # no two ways are over the same nodes

    def _weight(self, nodes: tuple[int, ...], reach: _Reach) -> float:
        if reach.is_history[nodes[-1]]:
            return float(np.sqrt(reach.own[nodes[-1]]))
        rarity = min(float(self._rarity[node]) for node in nodes)
        return float(np.sqrt(min(reach.gain[nodes[-1]], 1.0))) * rarity * _LONGER ** (len(nodes) - 1)

    def _path(self, nodes: tuple[int, ...], places: tuple[int, ...], reach: _Reach) -> Path:
        steps, weight = tuple(self._step(place) for place in places), self._weight(nodes, reach)
        if reach.is_history[nodes[-1]]:
            return Path((), steps, steps, nodes, weight)
        history, ends = reach.ends(nodes[-1])
        return Path(nodes, steps, tuple(self._step(end) for end in ends), history, weight)

    def _step(self, place: int) -> Step:
        at = int(self._triple[place])
        return Step(int(self._heads[at]), int(self._relations[at]), int(self._tails[at]), bool(self._inferred[at]))

    def _telling(self, place: int) -> tuple[bool, float, int]:
        """Order edges by what their end says: named before nameless, then the rarer."""
        node = int(self._ends[place])
        return self._labels[node] is None, -float(self._rarity[node]), node

    def _edges(self, node: int) -> npt.NDArray[np.int64]:
        return np.arange(self._offsets[node], self._offsets[node + 1])


class _Reach:
    """What a history touches. gain: by node, the weight of the history items that touch it."""

    def __init__(self, finder: PathFinder, rows_H: npt.NDArray[np.int64], share_H: Floats) -> None:
        size = len(finder._offsets) - 1
        places = [finder._edges(int(row)) for row in rows_H]
        owner_X = np.repeat(np.arange(len(rows_H)), [len(found) for found in places])
        place_X = np.concatenate([*places, np.empty(0, np.int64)]).astype(np.int64)
        node_X = finder._ends[place_X]
        rank_H = np.argsort(np.argsort(-share_H, kind="stable"), kind="stable")
        order = np.lexsort((place_X, rank_H[owner_X], node_X))
        node_X, owner_X, place_X = node_X[order], owner_X[order], place_X[order]
        first = np.ones(len(node_X), dtype=bool)
        first[1:] = (node_X[1:] != node_X[:-1]) | (owner_X[1:] != owner_X[:-1])
        self._nodes, self._owners, self._places = node_X[first], owner_X[first], place_X[first]
        self._rows = rows_H
        self.gain: Floats = np.bincount(self._nodes, share_H[self._owners], size).astype(np.float64)
        self.is_history = np.zeros(size, dtype=bool)
        self.is_history[rows_H] = True
        self.own: Floats = np.bincount(rows_H, share_H, size).astype(np.float64)

    def ends(self, node: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the history items that touch a node, the weightiest first, and the places of their edges."""
        window = slice(*np.searchsorted(self._nodes, [node, node + 1]))
        return tuple(self._rows[self._owners[window]].tolist()), tuple(self._places[window].tolist())


def varied(path: Path, given: Counter[Any]) -> Path:
    """Return a path whose examples from the history begin with one that `given` has counted least, and count it.

    Only the weightiest six compete, so that a list of reasons names other titles in every line and still those that
    carry most. The triple that leads to each goes with it.
    """
    first = range(min(_EXAMPLES, len(path.history)))
    order = sorted(first, key=lambda place: given[(_EXAMPLE, path.history[place])])
    order += range(len(first), len(path.history))
    given.update((_EXAMPLE, path.history[place]) for place in order[:1])
    history = tuple(path.history[place] for place in order)
    return replace(path, history=history, ends=tuple(path.ends[place] for place in order))


def shorter(text: str, longest: int) -> str:
    """Return a text cut to so many characters, the last a sign that it was.

    >>> shorter("A Close Shave", 8)
    'A Close…'
    """
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def is_inferred(triples: pl.DataFrame) -> npt.NDArray[np.bool_]:
    """Say of each triple whether a person accepted it and no source says it; none where sources are not known."""
    if c.SOURCE not in triples.columns:
        return np.zeros(triples.height, dtype=bool)
    return triples.select((pl.col(c.SOURCE) == ACCEPTED).fill_null(False)).to_series().to_numpy()
