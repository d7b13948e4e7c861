"""The features for Feast: a module of definitions and a Parquet source for each view, in a folder that it applies.

A source holds, per key, the view's values as known just before each row of the log, at the row's time, and those of
the service at the end of the log. So a historical read at the rows' times gives what training read, and what is
materialised up to the end is what the service looks up. Feast holds pandas back and is no dependency: nothing of it is
imported here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from kgrec.artifacts import write_atomically
from kgrec.columns import ITEM, ITEM_ROW, PART, TIME, TRAIN, USER, USER_ROW
from kgrec.features.latest import LatestView
from kgrec.features.online import OnlineView
from kgrec.features.point_in_time import FeatureTables
from kgrec.features.view import FeatureView

DEFINITIONS: Final = "kgrec_features.py"
SETTINGS: Final = "feature_store.yaml"
DATA: Final = "data"
STAMP: Final = "event_timestamp"

_HEAD = '''\
"""The features of {name}, written by `kgrec features export`: do not edit, the next export replaces this file."""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.types import Array, Float32, String
from feast.value_type import ValueType

DATA = Path(__file__).resolve().parent / "{data}"
'''
_YAML = """\
project: {project}
provider: local
registry: data/registry.db
offline_store:
  type: file
online_store:
  type: sqlite
  path: data/online.db
entity_key_serialization_version: 3
"""


@dataclass(frozen=True)
class Ids:
    """Which id each row of the users' and items' tables has."""

    users: pl.Series
    items: pl.Series

    def named(self, frame: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        """Return the keys under Feast's names: ids for rows, whole numbers as Int64, all else as text."""
        columns = []
        for key in keys:
            column = frame[key]
            if key in (USER_ROW, ITEM_ROW):
                column = (self.users if key == USER_ROW else self.items).gather(column)
            columns.append(column.cast(pl.Int64 if column.dtype.is_integer() else pl.String).alias(join_key(key)))
        return pl.DataFrame(columns)


def write_feast(
    folder: Path, name: str, labelled: pl.DataFrame, tables: FeatureTables, ids: Ids
) -> dict[str, Any]:  # fmt: skip
    """Write definitions and sources and return what was written; what is there of a former export is replaced.

    name: the project's. labelled, tables: what `build_features` was given and returned. An existing
    `feature_store.yaml` is left alone. Derived features are no columns of a view: they are left out and named.
    """
    (folder / DATA).mkdir(parents=True, exist_ok=True)
    known = pl.concat([labelled.select(pl.exclude(tables.rows.columns)), tables.rows], how="horizontal")
    end = known[TIME].max()
    if not isinstance(end, datetime) or not tables.views:
        return {
            "folder": str(folder),
            "views": [],
            "entities": [],
            "rows": 0,
            "until": None,
            "left_out": tables.left_out,
        }
    types: dict[str, pl.DataType] = {}
    rows, text = 0, [_HEAD.format(name=name, data=DATA)]
    latest = {view.name: view for view in tables.latest.views}
    for view in tables.views:
        keys = [ITEM_ROW if key == view.graph_key else key for key in view.keys]
        source = pl.concat(
            [_source(view, keys, known, ids), _source(view, keys, _at_end(latest[view.name], known), ids)]
        )
        source.write_parquet(folder / DATA / f".{view.name}.part")
        (folder / DATA / f".{view.name}.part").replace(folder / DATA / f"{view.name}.parquet")
        rows += source.height
        types |= {join_key(key): source.schema[join_key(key)] for key in keys}
        text.append(_definition(view, [join_key(key) for key in keys], source))
    entities = [_entity(key, dtype) for key, dtype in types.items()]
    service = f"service = FeatureService(name={_word(name)!r}, features=[{', '.join(_views(tables.views))}])"
    write_atomically(folder / DEFINITIONS, "\n".join([text[0], *entities, *text[1:], service, ""]).encode())
    if not (folder / SETTINGS).exists():
        write_atomically(folder / SETTINGS, _YAML.format(project=_word(name)).encode())
    made = [column for view in tables.views for column in view.columns]
    derived = {one: "no view over rows: it is derived, or of the graph" for one in tables.aggregates if one not in made}
    return {
        "folder": str(folder), "views": [view.name for view in tables.views], "entities": list(types), "rows": rows,
        "until": (end + timedelta(microseconds=1)).isoformat(), "left_out": dict(tables.left_out) | derived,
    }  # fmt: skip


def join_key(key: str) -> str:
    """Return the name of a key for Feast.

    >>> join_key("user_row"), join_key("item:author id")
    ('user', 'item_author_id')
    """
    return {USER_ROW: USER, ITEM_ROW: ITEM}.get(key) or _word(key)


def _source(view: FeatureView, keys: Sequence[str], rows: pl.DataFrame, ids: Ids) -> pl.DataFrame:
    """Return the view's keys, instants and values; of rows of one key and instant that of train."""
    plain = {column: feature.name for column, feature in zip(view.columns, view.features, strict=True)}
    values = rows.select(pl.col(TIME).alias(STAMP), *(pl.col(column).alias(name) for column, name in plain.items()))
    named = pl.concat([ids.named(rows, keys), values, rows.select(pl.col(PART).cast(pl.String) != TRAIN)],
                      how="horizontal").drop_nulls([*map(join_key, keys), STAMP])  # fmt: skip
    once = named.sort(PART, maintain_order=True).unique(
        [*map(join_key, keys), STAMP], keep="first", maintain_order=True
    )
    return once.drop(PART).sort(STAMP, *map(join_key, keys))


def _at_end(view: LatestView | OnlineView, known: pl.DataFrame) -> pl.DataFrame:
    """Return the values that are served for each key of the log, and when: just after its last row."""
    keys = list(view.keys)
    asked = pl.concat([view.table.select(keys), known.select(keys)], how="vertical_relaxed").unique(maintain_order=True)
    end = known.select((pl.col(TIME).max() + timedelta(microseconds=1)).alias(TIME))
    when = end.with_columns(pl.lit(TRAIN).alias(PART)).select(pl.all().repeat_by(asked.height).explode())
    return pl.concat([asked, view.find(asked), when], how="horizontal")


def _entity(key: str, dtype: pl.DataType) -> str:
    kind = "INT64" if dtype.is_integer() else "STRING"
    return f"entity_{key} = Entity(name={key!r}, join_keys=[{key!r}], value_type=ValueType.{kind})"


def _definition(view: FeatureView, keys: Sequence[str], source: pl.DataFrame) -> str:
    fields = [
        f"Field(name={feature.name!r}, "
        f"dtype={'Array(String)' if source.schema[feature.name] == pl.List(pl.String) else 'Float32'})"
        for feature in view.features
    ]
    lookback = "all time" if view.lookback is None else str(view.lookback)
    tags = json.dumps({"source": view.source.name, "lookback": lookback})
    ttl = timedelta(0) if view.ttl is None else view.ttl
    return (
        f"view_{view.name} = FeatureView(\n"
        f"    name={view.name!r},\n"
        f"    entities=[{', '.join(f'entity_{key}' for key in keys)}],\n"
        f"    ttl=timedelta(seconds={ttl.total_seconds()!r}),\n"
        f"    schema=[{', '.join(fields)}],\n"
        f"    source=FileSource(name={view.name!r}, path=str(DATA / {view.name + '.parquet'!r}), "
        f"timestamp_field={STAMP!r}),\n"
        f"    description={view.description!r},\n"
        f"    owner={view.owner!r},\n"
        f"    tags={tags},\n"
        ")"
    )


def _views(views: Sequence[FeatureView]) -> list[str]:
    return [f"view_{view.name}" for view in views]


def _word(name: str) -> str:
    """Return a name that Python and Feast take: letters, digits and _, a letter first."""
    word = re.sub(r"\W", "_", name, flags=re.ASCII)
    return word if word[:1].isalpha() else f"kgrec_{word.lstrip('_')}"
