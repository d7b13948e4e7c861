"""Looking at a built graph: the promoted version's, else the one that was built last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from kgrec.artifacts import MANIFEST, Artifact, load_artifact, write_atomically
from kgrec.columns import ITEM
from kgrec.data.ingest import FOUND_LINKS_FILE
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import InputError, Problem
from kgrec.graph.linking import REVIEW, VERDICT
from kgrec.graph.picture import Surroundings, picture_page
from kgrec.serving.package import GRAPH_NODES, GRAPH_TRIPLES, ITEMS, RELATIONS
from kgrec.serving.recommend import load
from kgrec.serving.versions import read_registry
from kgrec.workspace import Workspace

REPORT: Final = "relations.parquet"


@dataclass(frozen=True)
class GraphView:
    """A built graph as it lies in an artifact.

    origin: what people call it. report: a row a relation, None in a version.
    """

    origin: str
    facts: Mapping[str, Any]
    triples: pl.DataFrame
    nodes: pl.DataFrame
    relations: list[str]
    num_items: int
    report: pl.DataFrame | None

    def surroundings(self) -> Surroundings:
        """Return the graph as pictures need it."""
        return Surroundings(self.triples, self.nodes, self.relations, self.num_items)


def open_graph(workspace: Workspace) -> GraphView:
    """Return the graph of the promoted version, or the newest built one; InputError when there is none."""
    registry = read_registry(workspace)
    record = registry.find(registry.promoted) if registry.promoted else None
    if record is not None:
        version = load_artifact(workspace.store.path("version", record.key))
        return _view(f"version {record.version}", version, GRAPH_TRIPLES, GRAPH_NODES)
    return newest_graph(workspace)


def newest_graph(workspace: Workspace) -> GraphView:
    """Return the graph that was built last, promoted or not; InputError when there is none."""
    manifests = sorted((workspace.store.root / "graph").glob(f"*/{MANIFEST}"), key=lambda m: (m.stat().st_mtime_ns, m))
    if not manifests:
        remedy = "build one with `kgrec graph CONFIG` or `kgrec run CONFIG`"
        raise InputError(Problem(str(workspace.shown), "the workspace has no graph yet", remedy))
    return _view("the graph built last", load_artifact(manifests[-1].parent), "triples.parquet", "nodes.parquet")


def write_review(workspace: Workspace, out: Path) -> dict[str, Any]:
    """Write the links that wait for a person as CSV, the column `verdict` empty; return how many there are.

    They are those of the newest ingest; InputError when it found no links by name.
    """
    manifests = sorted((workspace.store.root / "ingest").glob(f"*/{MANIFEST}"), key=lambda m: (m.stat().st_mtime_ns, m))
    if not manifests or not load_artifact(manifests[-1].parent).has(FOUND_LINKS_FILE):
        remedy = "set knowledge.linking in the config and run `kgrec ingest CONFIG`"
        raise InputError(Problem(str(workspace.shown), "no links were found by name", remedy))
    found = pl.read_parquet(load_artifact(manifests[-1].parent).file(FOUND_LINKS_FILE))
    waiting = found.filter(pl.col(VERDICT) == REVIEW).with_columns(pl.lit("").alias(VERDICT))
    try:
        waiting.write_csv(out)
    except OSError as error:
        raise InputError(Problem(str(out), f"cannot be written: {error.strerror}", "name another --out")) from None
    return {"links": waiting.height, "items": waiting[ITEM].n_unique(), "file": str(out)}


def _view(origin: str, artifact: Artifact, triples: str, nodes: str) -> GraphView:
    frame = pl.read_parquet(artifact.file(nodes))
    items = len(Vocabulary.load(artifact.file(ITEMS))) if artifact.has(ITEMS) else int(artifact.facts["items"])
    report = pl.read_parquet(artifact.file(REPORT)) if artifact.has(REPORT) else None
    relations = Vocabulary.load(artifact.file(RELATIONS)).entries.to_list()
    return GraphView(origin, artifact.facts, pl.read_parquet(artifact.file(triples)), frame, relations, items, report)


def draw_neighbourhood(workspace: Workspace, entity: str, hops: int, out: Path) -> dict[str, Any]:
    """Write the picture of what lies around an entity (its id, label or name); return what was drawn.

    Raises InputError for an unknown entity (with the nearest), and for a file that cannot be written.
    """
    view = open_graph(workspace)
    graph = view.surroundings()
    root = graph.around(graph.find(entity), hops)
    told = {"from": view.origin, "hops": str(hops), "facts about it": f"{root.degree:,}"}
    _write(out, picture_page(root.name, root, told))
    return {"entity": root.name, "hops": hops, "branches": root.count() - 1, "file": str(out), "origin": view.origin}


def draw_explanation(workspace: Workspace, user: str, item: str, out: Path) -> dict[str, Any]:
    """Write the picture of why the promoted version has an item for a user; return what was drawn.

    The paths are those of `kgrec explain`. Raises InputError for an unknown item (with the nearest), where the graph
    plays no part in the scores or no path leads to what the user had, and for a file that cannot be written.
    """
    version = load(workspace.root)
    told = version.explain(user, item)
    row = version.item_rows[told["item"]]
    asked, rows = version.ask(user), np.array([row], dtype=np.int64)
    (found,) = version.explainer.explain(asked, rows, [told["score"]])
    if not found.paths:
        what = f"no path in the graph leads from item {item} to what user {user} had"
        remedy = f"draw what lies around it: kgrec graph show --entity {item}; why it is served: kgrec explain"
        raise InputError(Problem("--item", what, remedy))
    root = open_graph(workspace).surroundings().explanation(row, found.paths)
    facts = {"for user": user, "from": f"version {version.number}", "score": f"{told['score']:.4f}"}
    facts |= {"in short": told["reason"]}
    _write(out, picture_page(f"Why {root.name}", root, facts, all_open=True))
    return {"user": user, "item": told["item"], "title": root.name, "paths": len(found.paths),
            "branches": root.count() - 1, "file": str(out), "origin": f"version {version.number}"}  # fmt: skip


def _write(out: Path, page: str) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page.encode())
    except OSError as error:
        raise InputError(Problem(str(out), f"cannot be written: {error.strerror}", "name another --out")) from None
