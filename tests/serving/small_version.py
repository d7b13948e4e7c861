"""A version small enough to know every answer by heart: six items of a catalogue, one that is gone, five users.

ann and bob were trained; cat came after training and has a history; dan has none; eve's only item is gone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from kgrec import columns as c
from kgrec.artifacts import Artifact, ArtifactStore
from kgrec.data.vocabulary import Vocabulary
from kgrec.evaluation.ranking import ExcludeSeen, Target
from kgrec.serving import package
from kgrec.serving.index import IndexConfig, build_index
from kgrec.serving.package import write_version

ITEMS = ["a", "b", "c", "d", "e", "f", "gone"]
USERS = ["ann", "bob", "cat", "dan", "eve"]
ENTITIES = ["comedy", "m.0x"]
RELATIONS = ["film.film.genre", "directed_by"]
TITLES = ["Film A", "Film B", "Film C", "Film D", "Film E", None]
ITEM_VECTORS = [[1, 0, 0], [0.6, 0.8, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 0, 1], [0.6, 0, 0.8], [1, 0, 0]]
FOLD_VECTORS = [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 2, 0], [0, 1, 0], [0, 0, 0]]
USER_VECTORS = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]]
EVENTS = [  # user, item, click, conversion, part
    (0, 2, True, True, c.TRAIN), (0, 0, True, False, c.TRAIN), (0, 1, True, False, c.TRAIN),
    (0, 0, True, False, c.TRAIN), (1, 3, True, False, c.TRAIN), (1, 0, False, True, c.TEST),
    (2, 4, True, False, c.VALIDATION), (4, 6, True, False, c.TEST),
]  # fmt: skip
TRIPLES = [(0, 0, 7), (5, 0, 7), (1, 1, 8), (5, 1, 8)]
START = datetime(2024, 1, 1, tzinfo=UTC)


def vocabulary(ids: list[str]) -> Vocabulary:
    """Return the vocabulary of these ids."""
    return Vocabulary.of(pl.Series(ids, dtype=pl.String))


def events() -> pl.DataFrame:
    """Return the log, one event a day."""
    schema = [c.USER_ROW, c.ITEM_ROW, c.CLICK, c.CONVERSION, c.PART]
    frame = pl.DataFrame(EVENTS, schema=schema, orient="row").cast(
        {c.USER_ROW: c.ROW_TYPE, c.ITEM_ROW: c.ROW_TYPE, c.PART: c.PART_TYPE}
    )
    days = [START + timedelta(days=day) for day in range(len(EVENTS))]
    return frame.with_columns(pl.Series(c.TIME, days, dtype=c.TIME_TYPE))


def make_parts(
    store: ArtifactStore, name: str = "one", shards: int = 1
) -> tuple[Artifact, Artifact, Artifact, Artifact]:
    """Return log, graph, trained and index artifacts."""
    log, _ = store.build("split", {"of": name}, {}, _log)
    graph, _ = store.build("graph", {"of": name}, {}, _graph)
    trained, _ = store.build("train", {"of": name}, {}, _trained)
    bound = {"item vocabulary": vocabulary(ITEMS).digest, "model": trained.files[package.VECTORS]}
    vectors = np.array(ITEM_VECTORS[:6], dtype=np.float32)
    index, _ = store.build(
        "index", {"of": name}, {"shards": shards},
        lambda out: build_index(vectors, np.arange(6), out, IndexConfig(shards=shards)) | {"bound_to": bound},
    )  # fmt: skip
    return log, graph, trained, index


def make_version(
    store: ArtifactStore,
    exclude_seen: ExcludeSeen = ExcludeSeen.ANY,
    target: Target = Target.CLICK,
    name: str = "shop",
    shards: int = 1,
) -> Artifact:
    """Return a version artifact made of them."""
    log, graph, trained, index = make_parts(store, shards=shards)
    config = {"shards": shards, "exclude_seen": exclude_seen, "target": target, "name": name}

    def make(out: Path) -> dict[str, Any]:
        facts = write_version(
            out, log, None, graph, trained, index, exclude_seen=exclude_seen, target=target, name=name
        )  # fmt: skip
        return facts | {"index": IndexConfig(threads=1).model_dump(mode="json")}

    return store.build("version", {}, config, make)[0]


def _log(out: Path) -> dict[str, Any]:
    vocabulary(USERS).save(out / package.USERS)
    vocabulary(ITEMS).save(out / package.ITEMS)
    events().write_parquet(out / "events.parquet")
    catalogue = {c.ITEM_ROW: range(6), c.ITEM: ITEMS[:6], c.TITLE: TITLES}
    pl.DataFrame(catalogue, schema_overrides={c.ITEM_ROW: c.ROW_TYPE}).write_parquet(out / "catalogue.parquet")
    return {"users": len(USERS), "items": len(ITEMS)}


def _graph(out: Path) -> dict[str, Any]:
    vocabulary(ENTITIES).save(out / package.ENTITIES)
    vocabulary(RELATIONS).save(out / package.RELATIONS)
    schema = {c.HEAD_ROW: c.ROW_TYPE, c.RELATION_ROW: c.ROW_TYPE, c.TAIL_ROW: c.ROW_TYPE}
    pl.DataFrame(TRIPLES, schema=schema, orient="row").write_parquet(out / "triples.parquet")
    labels = [*TITLES, None, "Comedy", "Nora Ephron"]
    ends = [end for head, _, tail in TRIPLES for end in (head, tail)]
    nodes = {"node": range(9), c.ID: ITEMS + ENTITIES, c.LABEL: labels, "degree": [ends.count(n) for n in range(9)]}
    types = {"node": c.ROW_TYPE, "degree": pl.Int32}
    pl.DataFrame(nodes, schema_overrides=types).write_parquet(out / "nodes.parquet")
    return {}


def _trained(out: Path) -> dict[str, Any]:
    tables = {"user_vectors_UD": USER_VECTORS, "item_vectors_ID": ITEM_VECTORS, "item_fold_ID": FOLD_VECTORS}
    save_file({name: np.array(rows, dtype=np.float32) for name, rows in tables.items()}, out / package.VECTORS)
    (out / "history.json").write_text('[{"loss": 1.0}]')
    return {}
