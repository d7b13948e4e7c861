"""Completion of the graph with a person in it: what the served model proposes, and what a build takes up again."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl
import torch
from torch import Tensor

from kgrec import columns as c
from kgrec.artifacts import MANIFEST, Artifact, load_artifact
from kgrec.chain.learn import load_network
from kgrec.config import TaskName
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import InputError, Problem, nearest
from kgrec.graph.completion import Candidates, Completer, is_among, learn_confidence, precision
from kgrec.graph.names import relation_words
from kgrec.graph.review import ACCEPTED, CONFIDENCE, PROPOSALS_SCHEMA, TAIL_IS_ITEM, LinkReview, link_id
from kgrec.serving.package import GRAPH_NODES, GRAPH_TRIPLES, RELATIONS
from kgrec.serving.versions import read_registry
from kgrec.workspace import Workspace

_KEY: Final = (c.HEAD_ROW, c.RELATION_ROW, c.TAIL_ROW)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Proposed:
    """What was proposed (PROPOSALS_SCHEMA), how many of it are new, and how far the confidence can be trusted."""

    proposals: pl.DataFrame
    new: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class LearnedLinks:
    """A trained model beside the graph it was trained on. origin: what people call it. newer: the promoted version
    where its graph was updated since.
    """

    origin: str
    trained: Artifact
    graph: Artifact
    newer: Artifact | None = None


def propose_links(workspace: Workspace, most: int, relation: str | None = None) -> Proposed:
    """Score what the graph does not say about its items and store the most confident as proposals.

    The model is that of the promoted version, else the one trained last. The confidence is calibrated on the validation
    triples and shown beside what it is worth on the test triples. What was judged is not proposed again, and what
    an update of the graph says since is not missing. InputError when no model learned links, or for an unknown relation
    (its id or its words).
    """
    model = learned_links(workspace)
    rows = pl.read_parquet(model.graph.file("triples.parquet"))
    known = {part: _triples(rows.filter(pl.col(c.PART) == part)) for part in c.PARTS}
    relations = Vocabulary.load(model.graph.file(RELATIONS)).entries.to_list()
    wanted = None if relation is None else _relation_rows(relation, relations)
    network, _ = load_network(model.trained)
    completer = Completer(network.score_tails, network.score_heads, known[c.TRAIN], int(model.graph.facts["items"]))
    hidden, untested, missing = completer.candidates(
        [torch.cat([known[part] for part in c.PARTS if part != hide]) for hide in (c.VALIDATION, c.TEST, None)], wanted
    )
    confidence = learn_confidence(hidden, known[c.VALIDATION])
    facts = {"model": model.origin, **confidence.facts}
    if len(known[c.TEST]) and len(known[c.VALIDATION]):
        promised = confidence.of(untested, len(known[c.TEST]) / len(known[c.VALIDATION]))
        facts["on_test_triples"] = precision(promised, is_among(untested.triples_C3, known[c.TEST]), most)
    review = LinkReview(workspace.links)
    settled = set(review.verdicts()) | _said_since(model)
    table = _table(model, missing, confidence.of(missing), relations, most + len(settled))
    table = table.filter(~pl.col(c.ID).is_in(list(settled))).head(most)
    return Proposed(table, review.add(table), facts)


def learned_links(workspace: Workspace) -> LearnedLinks:
    """Return the promoted version's model, else the one trained last; InputError when it learned no links."""
    registry = read_registry(workspace)
    record = registry.find(registry.promoted) if registry.promoted else None
    version = load_artifact(workspace.store.path("version", record.key), verify=False) if record is not None else None
    trained = _newest(workspace, "train", version.inputs.get("train") if version is not None else None)
    graph = None if trained is None else _newest(workspace, "graph", trained.inputs.get("graph"))
    if trained is None or graph is None:
        remedy = "train one with `kgrec run CONFIG`; the artifacts of the promoted version must still be there"
        raise InputError(Problem(str(workspace.shown), "the workspace has no trained model", remedy))
    if TaskName.KG.value not in trained.facts.get("tasks", []):
        remedy = 'add "kg" to `tasks`, give it triples, and run again'
        raise InputError(Problem(str(workspace.shown), "the model learned no links of the graph", remedy))
    newer = version if version is not None and version.inputs.get("graph") != graph.digest else None
    return LearnedLinks(f"version {record.version}" if record is not None else "trained last", trained, graph, newer)


def with_accepted(
    workspace: Workspace, system: str, triples: pl.DataFrame, links: pl.DataFrame | None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return canonical triples with the accepted links of a config behind them, and facts; nothing where none is.

    They are marked by their source, `accepted`. links: item, entity; None where an item's id is its entity's. A link
    to an item that has no entity cannot be said in triples and is left out, counted.
    """
    accepted = LinkReview(workspace.links).accepted(system)
    if accepted.is_empty():
        return triples, {}
    tail = pl.col(c.TAIL)
    if links is not None:
        entities = links.unique(c.ITEM, keep="first", maintain_order=True).rename({c.ITEM: c.TAIL})
        accepted = accepted.join(entities, on=c.TAIL, how="left", maintain_order="left")
        tail = pl.when(pl.col(TAIL_IS_ITEM)).then(c.ENTITY).otherwise(c.TAIL)
    from_people = accepted.with_columns(tail.alias(c.TAIL)).filter(pl.col(c.TAIL).is_not_null())
    rows = from_people.select(
        c.HEAD, c.RELATION, c.TAIL, pl.lit(ACCEPTED).alias(c.SOURCE), c.HEAD_IS_ITEM,
        pl.lit(1.0, pl.Float32).alias(c.WEIGHT), pl.lit(None, c.TIME_TYPE).alias(c.KNOWN_AT),
        *([pl.lit(c.TRAIN, c.PART_TYPE).alias(c.PART)] if c.PART in triples.columns else []),
    )  # fmt: skip
    left_out = accepted.height - rows.height
    if left_out:
        logger.warning("%d accepted links lead to items without an entity and are left out", left_out)
    return pl.concat([triples, rows.select(triples.columns)]), {
        "links_accepted": rows.height, "links_accepted_left_out": left_out,
    }  # fmt: skip


def accepted_ids(workspace: Workspace, system: str) -> list[str]:
    """Return the ids of the accepted links of a config's graph: what a build depends on."""
    return LinkReview(workspace.links).accepted(system)[c.ID].to_list()


def _newest(workspace: Workspace, kind: str, digest: str | None) -> Artifact | None:
    """Return the artifact of this content, or the newest of its kind where none is named."""
    manifests = sorted((workspace.store.root / kind).glob(f"*/{MANIFEST}"), key=lambda m: (m.stat().st_mtime_ns, m))
    for manifest in reversed(manifests):
        found = load_artifact(manifest.parent, kind, verify=False)
        if digest is None or found.digest == digest:
            return load_artifact(manifest.parent, kind)
    return None


def _said_since(model: LearnedLinks) -> set[str]:
    """Return the ids of the links that the promoted version's graph says, where it is newer than the model's."""
    if model.newer is None:
        return set()
    ids = pl.read_parquet(model.newer.file(GRAPH_NODES))[c.ID]
    relations, system = Vocabulary.load(model.newer.file(RELATIONS)).entries, str(model.graph.config["name"])
    rows = pl.read_parquet(model.newer.file(GRAPH_TRIPLES), columns=list(_KEY))
    named = zip(*(names.gather(rows[key]) for names, key in zip((ids, relations, ids), _KEY, strict=True)), strict=True)
    return {link_id(system, head, relation, tail) for head, relation, tail in named}


def _triples(rows: pl.DataFrame) -> Tensor:
    return torch.tensor(rows.select(_KEY).to_numpy(), dtype=torch.int64).reshape(-1, 3)


def _relation_rows(wanted: str, relations: list[str]) -> list[int]:
    rows = [row for row, name in enumerate(relations) if wanted in (name, relation_words(name))]
    if not rows:
        close = nearest(wanted, [*relations, *map(relation_words, relations)])
        remedy = f"did you mean {close!r}?" if close else "see `kgrec graph report`"
        raise InputError(Problem("--relation", f"the graph has no relation {wanted!r}", remedy))
    return rows


def _table(
    model: LearnedLinks, missing: Candidates, confidence_C: Any, relations: list[str], most: int
) -> pl.DataFrame:
    """Return the most confident candidates as rows with ids and names."""
    nodes = pl.read_parquet(model.graph.file("nodes.parquet"))
    ids, names = nodes[c.ID].to_list(), nodes[c.NAME].to_list()
    items, system = int(model.graph.facts["items"]), str(model.graph.config["name"])
    now = datetime.now(UTC).isoformat("T", "seconds")
    order = sorted(range(len(confidence_C)), key=lambda place: (-confidence_C[place], place))[:most]
    rows = []
    for place in order:
        head, relation, tail = missing.triples_C3[place].tolist()
        named = (ids[head], relations[relation], ids[tail])
        score, confidence = float(missing.log_chance_C[place]), float(confidence_C[place])
        rows.append((
            link_id(system, *named), system, *named, head < items, tail < items, names[head],
            relation_words(relations[relation]), names[tail], score, confidence, model.origin, now,
        ))  # fmt: skip
    return pl.DataFrame(rows, schema=PROPOSALS_SCHEMA, orient="row").sort(
        [CONFIDENCE, c.SCORE, c.ID], descending=[True, True, False]
    )
