"""Reasons: what connects an item with what the user had before, in words for people.

This is the plain form: entities that the item shares with the history, hubs damped by their degree. Where the graph
has no path, the nearest item of the history by the model's own vectors is the reason.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from kgrec import columns as c
from kgrec.graph.knowledge_graph import DEGREE, NODE

_WORD_BREAK = re.compile(r"[_\s]+")


@dataclass(frozen=True)
class SharedEntity:
    """An entity between the item and items of the history. `weight` is larger where it says more."""

    node: int
    relation_row: int
    history_nodes: tuple[int, ...]
    weight: float


class PathFinder:
    """Finds entities shared by an item and a history. Nodes are rows of the graph's node table."""

    def __init__(self, triples: pl.DataFrame, nodes: pl.DataFrame, relation_names: Sequence[str]) -> None:
        heads, tails = triples[c.HEAD_ROW].to_numpy(), triples[c.TAIL_ROW].to_numpy()
        relations = triples[c.RELATION_ROW].to_numpy()
        starts = np.concatenate([heads, tails])
        order = np.argsort(starts, kind="stable")
        self._ends = np.concatenate([tails, heads])[order]
        self._relations = np.concatenate([relations, relations])[order]
        self._offsets = np.searchsorted(starts[order], np.arange(nodes.height + 1))
        self._labels: list[str | None] = nodes[c.LABEL].to_list()
        self._ids: list[str] = nodes[c.ID].to_list()
        self._degrees: npt.NDArray[np.int32] = nodes.sort(NODE)[DEGREE].to_numpy()
        self._relation_names = [_for_people(name) for name in relation_names]

    def shared(self, item: int, history: Sequence[int], limit: int = 2) -> list[SharedEntity]:
        """Return up to `limit` entities that the item shares with the history, the most telling first.

        weight = sqrt(share) * log2(nodes / (1 + degree)), where share is the part of the history that has it too: an
        entity that half of all nodes touch says little. Entities without a name come after those with one; equal
        weights by node row. Direct neighbours within the history count as shared, too.
        """
        sharers: dict[int, list[int]] = defaultdict(list)
        for other in history:
            for node in set(self._neighbours(other)[0].tolist()):
                sharers[node].append(other)
        found: dict[int, SharedEntity] = {}
        for node, relation in zip(*self._neighbours(item), strict=True):
            others = [other for other in sharers.get(int(node), ()) if other != item]
            if others and int(node) not in found:
                rarity = max(float(np.log2(len(self._ids) / (1 + self._degrees[node]))), 0.0)
                weight = float(np.sqrt(len(others) / len(history))) * rarity
                found[int(node)] = SharedEntity(int(node), int(relation), tuple(others), weight)
        named_first = sorted(found.values(), key=lambda one: (self._labels[one.node] is None, -one.weight, one.node))
        return named_first[:limit]

    def name(self, node: int) -> str:
        """Return a node's label, or its id where nobody gave it one."""
        return self._labels[node] or self._ids[node]

    def relation(self, row: int) -> str:
        """Return a relation's name as people read it."""
        return self._relation_names[row]

    def sentence(self, shared: Sequence[SharedEntity]) -> str:
        """Return the reason in words, such as: genres Comedy as in "Babe", "Emma"."""
        parts = []
        for entity in shared:
            examples = ", ".join(f'"{self.name(node)}"' for node in entity.history_nodes[:2])
            more = len(entity.history_nodes) - 2
            others = f" and {more} more" if more > 0 else ""
            parts.append(
                f"{self._relation_names[entity.relation_row]} {self.name(entity.node)} as in {examples}{others}"
            )
        return "; ".join(parts)

    def _neighbours(self, node: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        window = slice(self._offsets[node], self._offsets[node + 1])
        return self._ends[window], self._relations[window]


def _for_people(relation: str) -> str:
    """Shorten a relation's name to what a person reads.

    >>> _for_people("film.film.directed_by")
    'directed by'
    """
    last = re.split(r"[./#]", relation.rstrip("./#"))[-1]
    return _WORD_BREAK.sub(" ", last).strip() or relation
