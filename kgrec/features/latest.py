"""Features at serving time: the latest value per key, looked up for a request, saved as Parquet and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from kgrec.columns import ITEM_ROW, TIME, USER_ROW
from kgrec.errors import ArtifactError
from kgrec.features.derived import Derived, compute_derived

HOUR = "hour"
_INDEX = "latest.json"


@dataclass(frozen=True)
class LatestView:
    """One view's latest values: `table` holds keys and features, `unseen` what any other key gets."""

    name: str
    keys: tuple[str, ...]
    table: pl.DataFrame
    unseen: Mapping[str, Any]


@dataclass(frozen=True)
class LatestFeatures:
    """The latest values of every view, and the features derived from them."""

    views: tuple[LatestView, ...]
    derived: tuple[Derived, ...] = ()

    def look_up(
        self,
        requests: pl.DataFrame,
        side_users: pl.DataFrame | None = None,
        side_items: pl.DataFrame | None = None,
        *,
        context: Sequence[str] = (),
    ) -> pl.DataFrame:
        """Return the same columns as `FeatureTables.rows` for each request, in order.

        requests: `user_row`, `item_row` (null where unknown), context columns, and `time` where the hour is a feature.
        """
        rows = request_columns(requests, side_users, side_items, context)
        frame = pl.concat([requests.select(pl.exclude(rows.columns)), rows], how="horizontal")
        found = [rows]
        for view in self.views:
            keys = [pl.col(key).cast(view.table.schema[key], strict=False) for key in view.keys]
            values = frame.select(keys).join(view.table, on=list(view.keys), how="left", maintain_order="left")
            seen = frame.select(keys).join(
                view.table.select(*view.keys, pl.lit(True).alias("__seen")),
                on=list(view.keys), how="left", maintain_order="left",
            )["__seen"].is_not_null()  # fmt: skip
            types = view.table.schema
            found.append(values.select(
                pl.when(seen).then(pl.col(name)).otherwise(pl.lit(unseen, dtype=types[name])).alias(name)
                for name, unseen in view.unseen.items()
            ))  # fmt: skip
        return compute_derived(pl.concat(found, how="horizontal"), self.derived)

    def save(self, folder: Path) -> None:
        """Write one Parquet file per view and an index into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        index = [{"name": view.name, "keys": list(view.keys), "unseen": dict(view.unseen)} for view in self.views]
        for view in self.views:
            view.table.write_parquet(folder / f"{view.name}.parquet")
        described = {"views": index, "derived": [feature.to_dict() for feature in self.derived]}
        (folder / _INDEX).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> LatestFeatures:
        """Read what `save` wrote; ArtifactError when a file is missing or its columns are others."""
        views = []
        try:
            described = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
            derived = tuple(Derived.from_dict(raw) for raw in described["derived"])
            for entry in described["views"]:
                table = pl.read_parquet(folder / f"{entry['name']}.parquet")
                if table.columns != [*entry["keys"], *entry["unseen"]]:
                    raise ArtifactError(f"{folder}: {entry['name']}.parquet has other columns than {_INDEX} says")
                views.append(LatestView(entry["name"], tuple(entry["keys"]), table, entry["unseen"]))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{folder}: no latest features ({error})") from None
        return cls(tuple(views), derived)


def request_columns(
    frame: pl.DataFrame, side_users: pl.DataFrame | None, side_items: pl.DataFrame | None, context: Sequence[str]
) -> pl.DataFrame:
    """Return what is known of each row without any history, in row order.

    Context columns, side features as `user:name` and `item:name` (null for an unknown user or item), and `hour`
    (0-23, UTC) where `frame` has `time`.
    """
    found = [frame.select(context)]
    for prefix, table, row in (("user:", side_users, USER_ROW), ("item:", side_items, ITEM_ROW)):
        if table is None or table.width < 2:
            continue
        named = table.rename({name: f"{prefix}{name}" for name in table.columns if name != row})
        joined = frame.select(row).join(named, on=row, how="left", maintain_order="left", validate="m:1")
        found.append(joined.drop(row))
    if TIME in frame.columns:
        found.append(frame.select(pl.col(TIME).dt.hour().alias(HOUR)))
    found = [part for part in found if part.width]
    return pl.concat(found, how="horizontal") if found else pl.DataFrame(height=frame.height)
