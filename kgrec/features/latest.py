"""Features at serving time: the latest value per key, looked up for a request.

In memory a view's values are a table and a look-up a join. Saved, they are mapped from disk and found by binary search
(`kgrec.features.online`). Both give the same answers, bit for bit: a test replays the rows of training through both.
"""

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
from kgrec.features.online import OnlineView, open_online, write_online

HOUR = "hour"
INDEX = "latest.json"
_SEEN = "__seen"


@dataclass(frozen=True)
class LatestView:
    """One view's latest values: `table` holds keys and features, `unseen` what any other key gets."""

    name: str
    keys: tuple[str, ...]
    table: pl.DataFrame
    unseen: Mapping[str, Any]

    def find(self, asked: pl.DataFrame) -> pl.DataFrame:
        """Return the view's columns for each asked row, in order; asked holds the keys."""
        types, keys = self.table.schema, list(self.keys)
        marked = self.table.with_columns(pl.lit(True).alias(_SEEN))
        cast = asked.select(pl.col(key).cast(types[key], strict=False) for key in keys)
        return cast.join(marked, on=keys, how="left", maintain_order="left").select(
            pl.when(pl.col(_SEEN)).then(pl.col(name)).otherwise(pl.lit(unseen, dtype=types[name])).alias(name)
            for name, unseen in self.unseen.items()
        )


@dataclass(frozen=True)
class LatestParts:
    """The same in parts: each sorted by key, its keys after those of the part before. Read and saved one by one."""

    name: str
    keys: tuple[str, ...]
    parts: tuple[pl.LazyFrame, ...]
    unseen: Mapping[str, Any]

    def held(self) -> LatestView:
        """Return the whole table in memory."""
        return LatestView(self.name, self.keys, pl.concat(part.collect() for part in self.parts), self.unseen)


@dataclass(frozen=True)
class LatestFeatures:
    """The latest values of every view, and the features derived from them."""

    views: tuple[LatestView | OnlineView, ...]
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
        found += [view.find(frame.select(list(view.keys))) for view in self.views]
        return compute_derived(pl.concat(found, how="horizontal"), self.derived)

    def save(self, folder: Path) -> None:
        """Write the memory-mapped table of each view and an index into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        whole = [(view.name, view.keys, (view.table.lazy(),), view.unseen) for view in self.views]
        _write(folder, whole, self.derived)

    @classmethod
    def load(cls, folder: Path) -> LatestFeatures:
        """Map what `save` wrote; ArtifactError when a file is missing or its columns are others."""
        try:
            described = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            derived = tuple(Derived.from_dict(raw) for raw in described["derived"])
            return cls(tuple(open_online(folder, entry) for entry in described["views"]), derived)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{folder}: no latest features ({error})") from None


def save_latest(folder: Path, views: Sequence[LatestParts], derived: Sequence[Derived]) -> None:
    """Write what `LatestFeatures.save` would write of the same views, a part of each at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, [(view.name, view.keys, view.parts, view.unseen) for view in views], derived)


def _write(folder: Path, views: Sequence[tuple[Any, ...]], derived: Sequence[Derived]) -> None:
    entries = [write_online(folder, name, list(keys), parts, unseen) for name, keys, parts, unseen in views]
    described = {"views": entries, "derived": [feature.to_dict() for feature in derived]}
    (folder / INDEX).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


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
