"""Features as arrays: computed by the declared views, encoded by statistics of train rows alone, kept for serving.

Axes: N labelled rows, F numeric and C categorical columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl
from safetensors.numpy import save_file

from kgrec import columns as c
from kgrec.artifacts import Artifact, canonical_json, write_atomically
from kgrec.data.vocabulary import Vocabulary
from kgrec.features.declarations import Declaration, node_views, split_declarations
from kgrec.features.encoding import FeatureEncoder, FeaturesConfig
from kgrec.features.over_graph import item_entities
from kgrec.features.point_in_time import FeatureTables, build_features
from kgrec.features.tables import FeatureTable
from kgrec.features.view import EVENTS as EVENT_SOURCE
from kgrec.serving.package import ITEMS, USERS

LABELLED: Final = "labelled.parquet"
EVENTS: Final = "events.parquet"
USER_FEATURES, ITEM_FEATURES = "user_features.parquet", "item_features.parquet"
FEATURES: Final = "features.safetensors"
ENCODER: Final = "encoder.json"
LATEST: Final = "latest"
TABLE: Final = "table"


@dataclass(frozen=True)
class Material:
    """What features are made of, as the stages before left it; `links` says whether the config names links."""

    log: Artifact
    ingested: Artifact
    links: bool

    def labelled(self) -> pl.DataFrame:
        """Return the labelled rows in their order."""
        return pl.read_parquet(self.log.file(LABELLED))

    def side(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the side features of users and of items."""
        return pl.read_parquet(self.log.file(USER_FEATURES)), pl.read_parquet(self.log.file(ITEM_FEATURES))

    def identities(self) -> pl.DataFrame:
        """Return the ids of each labelled row's user and item, when it was, its part and its labels."""
        labelled = self.labelled()
        told = [name for name in (c.TIME, c.PART, c.CLICK, c.CONVERSION) if name in labelled.columns]
        users, items = (Vocabulary.load(self.log.file(name)) for name in (USERS, ITEMS))
        ids = (users.ids(labelled[c.USER_ROW]).alias(c.USER), items.ids(labelled[c.ITEM_ROW]).alias(c.ITEM))
        return labelled.select(*ids, *told)

    def entities(self) -> pl.DataFrame:
        """Return what each item is tied to in the graph."""
        links = pl.read_parquet(self.ingested.file("links.parquet")) if self.links else None
        items = pl.read_parquet(self.log.file("catalogue.parquet"))
        return item_entities(pl.read_parquet(self.ingested.file("triples.parquet")), links, items)

    def tables(self, views: Sequence[Declaration], context: Sequence[str]) -> FeatureTables:
        """Compute the declared features; the events and the graph are read only where a view asks for them."""
        declared = split_declarations(views)[0]
        events = any(view.source == EVENT_SOURCE for view in declared)
        return build_features(
            views, self.labelled(), *self.side(), context=context,
            events=pl.read_parquet(self.log.file(EVENTS)) if events else None,
            entities=self.entities() if node_views(views) or any(view.graph_key for view in declared) else None,
        )  # fmt: skip


def write_encoded_features(
    out: Path,
    material: Material,
    views: Sequence[Declaration],
    context: Sequence[str],
    config: FeaturesConfig,
    table: FeatureTable,
) -> dict[str, Any]:
    """Write the encoded features of every labelled row, the encoder, and the latest values per key; return facts.

    The rows as they were before encoding, with ids, become a version of `table`, whose name is among the facts.
    """
    labelled = material.labelled()
    present = [name for name in context if name in labelled.columns]
    tables = material.tables(views, present)
    train = tables.rows.filter(labelled[c.PART] == c.TRAIN)
    encoder = FeatureEncoder.fit(train, context=present, counts=tables.counts, config=config)
    numeric_NF, categorical_NC = encoder.encode(tables.rows)
    save_file({"numeric_NF": numeric_NF, "categorical_NC": categorical_NC}, out / FEATURES)
    write_atomically(out / ENCODER, canonical_json(encoder.to_dict() | {"context": present}).encode())
    tables.latest.save(out / LATEST)
    identities = material.identities()
    version = table.write(pl.concat([identities, tables.rows.drop(identities.columns, strict=False)], how="horizontal"))
    for name, side in zip((USER_FEATURES, ITEM_FEATURES), material.side(), strict=True):
        side.write_parquet(out / name)
    return {
        "num_numeric": numeric_NF.shape[1],
        "cardinalities": list(encoder.cardinalities),
        "numeric": list(encoder.numeric_names),
        "categorical": list(encoder.categorical_names),
        "ignored": list(encoder.ignored),
        "left_out": dict(tables.left_out),
        TABLE: version,
    }
