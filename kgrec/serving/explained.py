"""An explanation in plain types, as the command, the service and Python give it: ids and names, no rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import numpy as np
import polars as pl

from kgrec.data.vocabulary import Vocabulary
from kgrec.graph.paths import Path, PathFinder, Step
from kgrec.serving.explain import PART_WORDS, Explainer
from kgrec.serving.index import Floats, Rows
from kgrec.serving.standing import Asked

_PATHS: Final = 6
_HISTORY_OF_PATH: Final = 4
_HISTORY: Final = 10
_PLACES: Final = 100


class Explained(Protocol):
    """What is asked of a version."""

    number: str
    items: Vocabulary
    titles: dict[int, str | None]

    @property
    def explainer(self) -> Explainer:
        """See `Version.explainer`."""

    @property
    def paths(self) -> PathFinder:
        """See `Version.paths`."""

    def ask(self, user: str) -> Asked:
        """See `Version.ask`."""

    def top(self, asked: Asked, k: int) -> tuple[Rows, Floats]:
        """See `Version.top`."""

    def score_of(self, item_row: int, asked: Asked) -> float:
        """See `Version.score_of`."""

    def title(self, item_row: int) -> str:
        """See `Version.title`."""


def explained(version: Explained, user: str, item_row: int) -> dict[str, Any]:
    """Return version, user, item, title, score, rank, based_on, reason, parts, history, paths, nodes and edges.

    rank: the item's place in the user's list, None beyond 100 or where it is left out as seen (`seen`). parts: part,
    words, score; the scores sum to the item's. history: item, title and what it adds, the largest first, at most 10.
    paths: words, weight, inferred and their edges, the best first. nodes, edges: the picture of these paths.
    """
    asked = version.ask(user)
    score = version.score_of(item_row, asked)
    rows = np.array([item_row], dtype=np.int64)
    found = version.explainer.explain(asked, rows, [score], _PATHS)[0]
    places = np.flatnonzero(version.top(asked, _PLACES)[0] == item_row)
    adds = [(row, value) for row, value in found.history.items() if value > 0][:_HISTORY]
    nodes, edges = _picture(version, item_row, found.paths)
    return {
        "version": version.number, "user": user, "item": _id(version, item_row), "title": version.titles.get(item_row),
        "score": score, "rank": int(places[0]) + 1 if len(places) else None, "seen": item_row in asked.seen,
        "based_on": asked.standing.value, "reason": found.reason,
        "parts": [{"part": part, "words": PART_WORDS[part], "score": value} for part, value in found.parts.items()],
        "history": [{"item": _id(version, row), "title": version.titles.get(row), "adds": plus} for row, plus in adds],
        "paths": [_path(version.paths, path) for path in found.paths],
        "nodes": nodes, "edges": edges,
    }  # fmt: skip


def _path(finder: PathFinder, path: Path) -> dict[str, Any]:
    steps = path.steps if not path.via else (*path.steps, *path.ends[:_HISTORY_OF_PATH])
    edges = [
        {"head": finder.name(step.head), "relation": finder.relation(step.relation_row), "tail": finder.name(step.tail),
         "inferred": step.inferred}
        for step in steps
    ]  # fmt: skip
    return {"words": finder.sentence(path, titles=3), "weight": path.weight, "inferred": path.inferred,
            "history_items": len(path.history), "edges": edges}  # fmt: skip


def _picture(
    version: Explained, item_row: int, paths: Sequence[Path]
) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """Return nodes and edges, drawn from the history over entities to the item; each edge once."""
    nodes = {item_row: {"id": str(item_row), "label": version.title(item_row), "kind": "item"}}
    edges: dict[tuple[int, int, str], dict[str, Any]] = {}
    for path in paths:
        for node in path.via:
            nodes.setdefault(node, {"id": str(node), "label": version.paths.name(node), "kind": "entity"})
        for node in path.history[:_HISTORY_OF_PATH]:
            nodes.setdefault(node, {"id": str(node), "label": version.title(node), "kind": "history"})
        for source, target, step in _drawn(item_row, path):
            relation = version.paths.relation(step.relation_row)
            edge = {"source": str(source), "target": str(target), "relation": relation, "inferred": step.inferred}
            edges.setdefault((source, target, relation), edge)
    return list(nodes.values()), list(edges.values())


def _drawn(item_row: int, path: Path) -> Iterable[tuple[int, int, Step]]:
    last = item_row
    for node, step in zip(path.via or path.history, path.steps, strict=False):
        yield last, node, step
        last = node
    if path.via:
        yield from (
            (node, last, step) for node, step in list(zip(path.history, path.ends, strict=True))[:_HISTORY_OF_PATH]
        )


def _id(version: Explained, row: int) -> str:
    return str(pl.Series(version.items.entries)[row])
