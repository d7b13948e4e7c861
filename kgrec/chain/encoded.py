"""Features as arrays: computed by the declared views, encoded by statistics of train rows alone, kept for serving.

Axes: N labelled rows, F numeric and C categorical columns.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from kgrec import columns as c
from kgrec.artifacts import Artifact, canonical_json, write_atomically
from kgrec.data.vocabulary import Vocabulary
from kgrec.features.declarations import Declaration, node_views, split_declarations
from kgrec.features.encoding import FeatureEncoder, FeaturesConfig
from kgrec.features.feature_log import FeatureLog
from kgrec.features.in_pieces import FeaturePieces, features_in_pieces
from kgrec.features.latest import save_latest
from kgrec.features.over_graph import item_entities
from kgrec.features.pieces import PIECE, kept
from kgrec.features.point_in_time import FeatureTables, tables_of
from kgrec.features.tables import TABLE, FeatureTable
from kgrec.features.view import EVENTS as EVENT_SOURCE
from kgrec.row_files import RowWriter
from kgrec.serving.package import ENCODED_ROWS, ITEMS, USERS

LABELLED: Final = "labelled.parquet"
EVENTS: Final = "events.parquet"
USER_FEATURES, ITEM_FEATURES = "user_features.parquet", "item_features.parquet"
NUMERIC, CATEGORICAL = ENCODED_ROWS
ENCODER: Final = "encoder.json"
LATEST: Final = "latest"


@dataclass(frozen=True)
class Material:
    """What features are made of, as the stages before left it; `links` says whether the config names links."""

    log: Artifact
    ingested: Artifact
    links: bool

    def labelled(self) -> pl.LazyFrame:
        """Return the labelled rows in their order."""
        return pl.scan_parquet(self.log.file(LABELLED), glob=False)

    def side(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the side features of users and of items."""
        return pl.read_parquet(self.log.file(USER_FEATURES)), pl.read_parquet(self.log.file(ITEM_FEATURES))

    def entities(self) -> pl.DataFrame:
        """Return what each item is tied to in the graph."""
        links = pl.read_parquet(self.ingested.file("links.parquet")) if self.links else None
        items = pl.read_parquet(self.log.file("catalogue.parquet"))
        return item_entities(pl.read_parquet(self.ingested.file("triples.parquet")), links, items)

    def feature_log(self, views: Sequence[Declaration], context: Sequence[str]) -> FeatureLog:
        """Return the rows that features are made of; events are among them only where a view asks for them."""
        asked = any(view.source == EVENT_SOURCE for view in split_declarations(views)[0])
        events = pl.scan_parquet(self.log.file(EVENTS), glob=False) if asked else None
        return FeatureLog.of(self.labelled(), events, *self.side(), context)

    def pieces(
        self, views: Sequence[Declaration], context: Sequence[str], at_once: int | None, folder: Path | None
    ) -> FeaturePieces:
        """Compute the declared features; the graph is read only where a view asks for it."""
        asked = node_views(views) or any(view.graph_key for view in split_declarations(views)[0])
        entities = self.entities() if asked else None
        log = self.feature_log(views, context)
        return features_in_pieces(views, log, entities, at_once=at_once, folder=folder)

    def tables(self, views: Sequence[Declaration], context: Sequence[str]) -> FeatureTables:
        """Compute the declared features in memory."""
        return tables_of(self.pieces(views, context, None, None))


@dataclass(frozen=True)
class Named:
    """The ids behind the rows of a log."""

    users: Vocabulary
    items: Vocabulary

    @classmethod
    def of(cls, log: Artifact) -> Named:
        """Read the vocabularies of a log."""
        return cls(Vocabulary.load(log.file(USERS)), Vocabulary.load(log.file(ITEMS)))

    def identities(self, labelled: pl.DataFrame) -> pl.DataFrame:
        """Return the ids of each labelled row's user and item, when it was, its part and its labels."""
        told = [name for name in (c.TIME, c.PART, c.CLICK, c.CONVERSION) if name in labelled.columns]
        users = self.users.ids(labelled[c.USER_ROW]).alias(c.USER)
        return labelled.select(users, self.items.ids(labelled[c.ITEM_ROW]).alias(c.ITEM), *told)


def write_encoded_features(
    out: Path, material: Material, views: Sequence[Declaration], context: Sequence[str], config: FeaturesConfig,
    table: FeatureTable, at_once: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write the encoded features of every labelled row, the encoder, and the latest values per key; return facts.

    The rows as they were before encoding, with ids, become a version of `table`, whose name is among the facts.
    at_once: rows that are held at a time, None for all; no result depends on it.
    """
    present = [name for name in context if name in material.labelled().collect_schema()]
    aside = out / ".aside"
    made = material.pieces(views, present, at_once, aside)
    rows: list[pl.LazyFrame] = []
    train = _kept_as_they_pass(material, made, rows, aside if at_once is not None and made.rows > at_once else None)
    encoder = FeatureEncoder.fit(train, context=present, counts=made.counts, config=config)
    _write_encoded(out, encoder, rows, made.rows)
    write_atomically(out / ENCODER, canonical_json(encoder.to_dict() | {"context": present}).encode())
    save_latest(out / LATEST, made.latest, made.derived)
    version = table.write(rows)
    shutil.rmtree(aside, ignore_errors=True)
    for name, side in zip((USER_FEATURES, ITEM_FEATURES), material.side(), strict=True):
        side.write_parquet(out / name)
    return {
        "num_numeric": len(encoder.numeric_names),
        "cardinalities": list(encoder.cardinalities),
        "numeric": list(encoder.numeric_names),
        "categorical": list(encoder.categorical_names),
        "ignored": list(encoder.ignored),
        "left_out": dict(made.left_out),
        TABLE: version,
    }


def _kept_as_they_pass(
    material: Material, made: FeaturePieces, rows: list[pl.LazyFrame], aside: Path | None
) -> Iterator[pl.DataFrame]:
    """Yield the features of the train rows of each piece, and keep the piece in `rows`, in files if asked.

    A kept row has ids, time, part, labels and its features.
    """
    named = Named.of(material.log)
    for start, piece in zip(range(0, max(made.rows, 1), PIECE), made.pieces(), strict=True):
        identities = named.identities(made.log.piece(start, PIECE))
        whole = pl.concat([identities, piece.drop(identities.columns, strict=False)], how="horizontal")
        rows.append(kept(whole, aside / "rows" if aside is not None else None))
        yield piece.filter(identities[c.PART] == c.TRAIN)


def _write_encoded(out: Path, encoder: FeatureEncoder, pieces: Sequence[pl.LazyFrame], count: int) -> None:
    with (
        RowWriter(out / NUMERIC, (count, len(encoder.numeric_names)), np.float32) as numeric_NF,
        RowWriter(out / CATEGORICAL, (count, len(encoder.categorical)), np.int32) as categorical_NC,
    ):
        for piece in pieces:
            numbers, codes = encoder.encode(piece.select(encoder.reads).collect())
            numeric_NF.append(numbers)
            categorical_NC.append(codes)
