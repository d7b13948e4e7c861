"""What a version folder holds: everything that serving needs, and nothing else.

A version is put together from artifacts that were checked, and stands alone: it can be moved, logged and loaded
without the workspace it came from.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from kgrec import columns as c
from kgrec.artifacts import Artifact, hash_file, share_file
from kgrec.data.vocabulary import Vocabulary
from kgrec.evaluation.ranking import ExcludeSeen, Target
from kgrec.graph.knowledge_graph import NODE
from kgrec.serving.index import index_files
from kgrec.serving.score import ITEM_FEATURES, NETWORK, TOWERS
from kgrec.serving.smaller import Entities, Precision, ServingConfig, idle_entities, packed

VECTORS: Final = "vectors.safetensors"
HISTORY: Final = "history.parquet"
CATALOGUE: Final = "catalogue.parquet"
POPULARITY: Final = "popularity"
SEEN: Final = "seen"
USERS, ITEMS = "users.vocabulary.parquet", "items.vocabulary.parquet"
ENTITIES, RELATIONS = "entities.vocabulary.parquet", "relations.vocabulary.parquet"
GRAPH_TRIPLES, GRAPH_NODES = "graph_triples.parquet", "graph_nodes.parquet"
ENCODED_ROWS: Final = ("numeric.npy", "categorical.npy")
TRAINED_USERS: Final = "trained_users.safetensors"
GRAPH_IN_SCORES: Final = "graph_in_scores"
SERVING: Final = "serving"


def write_version(
    out: Path, log: Artifact, features: Artifact | None, graph: Artifact, trained: Artifact, index: Artifact, *,
    exclude_seen: ExcludeSeen, target: Target, name: str, serving: ServingConfig | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write the files of a version into an empty folder and return the facts for its manifest.

    log: the split log with its vocabularies. The users' whole history goes in: what they had is left out of answers,
    whatever part of the split it was in. serving: how small the version is; as large as the model where left out.
    """
    for artifact, names in ((log, (USERS, ITEMS)), (graph, (ENTITIES, RELATIONS)), (index, tuple(index_files(index)))):
        for file in names:
            if artifact.has(file):
                shutil.copyfile(artifact.file(file), out / file)
    serving = serving or ServingConfig()
    write_packed(trained.file(VECTORS), out / VECTORS, serving.precision)
    if features is not None and trained.has(TOWERS):
        for source, file in ((trained, TOWERS), (trained, NETWORK), *((features, name) for name in features.files)):
            if file not in (*ENCODED_ROWS, TOWERS):
                (out / file).parent.mkdir(exist_ok=True)
                shutil.copyfile(source.file(file), out / file)
        write_packed(trained.file(TOWERS), out / TOWERS, serving.precision)
    if log.has(ITEM_FEATURES) and not (out / ITEM_FEATURES).exists():
        shutil.copyfile(log.file(ITEM_FEATURES), out / ITEM_FEATURES)  # requests filter by them
    write_graph(out, graph, serving.entities)
    bound = {"model": hash_file(out / VECTORS)} if serving.precision is not Precision.FULL else {}
    facts: dict[str, Any] = {"name": name, "bound_to": index.facts.get("bound_to", {}) | bound}
    facts[SERVING] = serving.model_dump(mode="json")
    facts[GRAPH_IN_SCORES] = _graph_in_scores(trained)
    if log.has("events.parquet"):
        _write_history(out, log, exclude_seen, target)
    return facts


def write_packed(source: Path, target: Path, precision: Precision) -> None:
    """Write a file of tensors in a precision; in full it is the same file."""
    if precision is Precision.FULL:
        share_file(source, target)
    else:
        save_file(packed(load_file(source), precision), target)


def write_graph(out: Path, graph: Artifact, entities: Entities) -> None:
    """Write the graph's triples and nodes; entities that are left out keep their row, without names."""
    if entities is Entities.ALL:
        shutil.copyfile(graph.file("triples.parquet"), out / GRAPH_TRIPLES)
        shutil.copyfile(graph.file("nodes.parquet"), out / GRAPH_NODES)
        return
    triples = pl.read_parquet(graph.file("triples.parquet"))
    nodes = pl.read_parquet(graph.file("nodes.parquet"))
    num_items = len(Vocabulary.load(out / ITEMS)) if (out / ITEMS).exists() else 0
    heads_T, tails_T = triples[c.HEAD_ROW].to_numpy(), triples[c.TAIL_ROW].to_numpy()
    idle_N = idle_entities(heads_T, tails_T, num_items, nodes.height)
    gone = pl.Series(np.flatnonzero(idle_N), dtype=triples.schema[c.HEAD_ROW])
    idle = pl.Series(idle_N[nodes[NODE].to_numpy()])
    triples.filter(~pl.col(c.HEAD_ROW).is_in(gone) & ~pl.col(c.TAIL_ROW).is_in(gone)).write_parquet(out / GRAPH_TRIPLES)
    texts = [name for name, kind in nodes.schema.items() if kind == pl.String]
    blank = [pl.when(idle).then(pl.lit("" if name != c.LABEL else None)).otherwise(pl.col(name)).alias(name)
             for name in texts]  # fmt: skip
    nodes.with_columns(blank).write_parquet(out / GRAPH_NODES)


def _write_history(out: Path, log: Artifact, exclude_seen: ExcludeSeen, target: Target) -> None:
    events = pl.read_parquet(log.file("events.parquet"))
    relevant = pl.col(c.CONVERSION) if target is Target.CONVERSION else pl.col(c.CLICK) | pl.col(c.CONVERSION)
    seen = {ExcludeSeen.ANY: pl.lit(True), ExcludeSeen.TARGET: relevant, ExcludeSeen.NONE: pl.lit(False)}[exclude_seen]
    history = (
        events.group_by(c.USER_ROW, c.ITEM_ROW)
        .agg(seen.any().alias(SEEN), pl.col(c.TIME).max().alias(c.TIME))
        .sort(c.USER_ROW, c.TIME, c.ITEM_ROW)
    )
    history.write_parquet(out / HISTORY)
    users = len(Vocabulary.load(log.file(USERS)))
    trained_U = np.zeros(users, dtype=np.uint8)
    trained_U[events.filter(pl.col(c.PART) == c.TRAIN)[c.USER_ROW].unique().to_numpy()] = 1
    save_file({"trained_U": trained_U}, out / TRAINED_USERS)
    popularity = history.group_by(c.ITEM_ROW).agg(pl.len().cast(pl.Float32).alias(POPULARITY))
    catalogue = pl.read_parquet(log.file("catalogue.parquet")).select(c.ITEM_ROW, c.TITLE)
    catalogue.join(popularity, on=c.ITEM_ROW, how="left", maintain_order="left").with_columns(
        (pl.col(POPULARITY).fill_null(0.0) / max(users, 1)).cast(pl.Float32)
    ).write_parquet(out / CATALOGUE)


def _graph_in_scores(trained: Artifact) -> bool:
    """Say whether the graph moves the scores: by propagation, by its triples' loss, or by the kernel of neighbours."""
    model, tasks = trained.config.get("model", {}), trained.config.get("tasks", ["kg"])
    kernel = trained.facts.get("blocks", {}).get("weights", {}).get("kernel", 0.0)
    propagated = model.get("graph_weight", 1.0) > 0 and model.get("layers", 1) > 0
    return bool(propagated or kernel or "kg" in tasks)
