"""Features as arrays: computed by the declared views, encoded by statistics of train rows alone, kept for serving.

Axes: N labelled rows, F numeric and C categorical columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl
from safetensors.numpy import save_file

from kgrec import columns as c
from kgrec.artifacts import Artifact, canonical_json, write_atomically
from kgrec.features.encoding import FeatureEncoder
from kgrec.features.point_in_time import build_features
from kgrec.features.view import FeatureView

LABELLED: Final = "labelled.parquet"
USER_FEATURES, ITEM_FEATURES = "user_features.parquet", "item_features.parquet"
FEATURES: Final = "features.safetensors"
ENCODER: Final = "encoder.json"
LATEST: Final = "latest"


def write_encoded_features(
    out: Path, log: Artifact, views: Sequence[FeatureView], context: Sequence[str]
) -> dict[str, Any]:
    """Write the encoded features of every labelled row, the encoder, and the latest values per key; return facts."""
    labelled = pl.read_parquet(log.file(LABELLED))
    present = [name for name in context if name in labelled.columns]
    side_users, side_items = (pl.read_parquet(log.file(name)) for name in (USER_FEATURES, ITEM_FEATURES))
    tables = build_features(views, labelled, side_users, side_items, context=present)
    train = tables.rows.filter(labelled[c.PART] == c.TRAIN)
    encoder = FeatureEncoder.fit(train, context=present, counts=tables.counts)
    numeric_NF, categorical_NC = encoder.encode(tables.rows)
    save_file({"numeric_NF": numeric_NF, "categorical_NC": categorical_NC}, out / FEATURES)
    write_atomically(out / ENCODER, canonical_json(encoder.to_dict() | {"context": present}).encode())
    tables.latest.save(out / LATEST)
    for name in (USER_FEATURES, ITEM_FEATURES):
        pl.read_parquet(log.file(name)).write_parquet(out / name)
    return {
        "num_numeric": numeric_NF.shape[1],
        "cardinalities": list(encoder.cardinalities),
        "numeric": list(encoder.numeric_names),
        "categorical": list(encoder.categorical_names),
        "ignored": list(encoder.ignored),
        "left_out": dict(tables.left_out),
    }
