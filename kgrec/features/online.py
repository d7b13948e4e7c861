"""One view's latest values as a memory-mapped table: sorted key codes beside a matrix, read by binary search.

Opening a table reads nothing; a look-up touches the pages it needs, and processes that serve one version share them.
Each key column has its sorted distinct values; a row's code is the mixed-radix number of their positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from kgrec.errors import ArtifactError
from kgrec.features.spans import Array

_LIST: Final = pl.List(pl.String)
_KEY_TYPES: Final[Mapping[str, pl.DataType]] = {
    str(dtype): dtype
    for dtype in (pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64(), pl.UInt8(), pl.UInt16(), pl.UInt32(), pl.Boolean(),
                  pl.String())
}  # fmt: skip


@dataclass(frozen=True)
class OnlineView:
    """A view's latest values on disk. `unseen` is what any other key gets; lists of text are named in `lists`."""

    name: str
    keys: Mapping[str, pl.DataType]
    unseen: Mapping[str, Any]
    lists: tuple[str, ...]
    distinct: tuple[Array, ...]
    codes: Array
    values_KF: Array
    texts: Mapping[str, tuple[Array, Array]]

    def find(self, asked: pl.DataFrame) -> pl.DataFrame:
        """Return the view's columns for each asked row, in order; asked holds the keys."""
        at = self._positions(asked)
        there = at >= 0
        numbers = [name for name in self.unseen if name not in self.lists]
        default_F = np.array([_number(self.unseen[name]) for name in numbers], np.float32)
        found_NF = np.where(there[:, None], self.values_KF[np.where(there, at, 0)], default_F) if len(self.codes) else (
            np.broadcast_to(default_F, (len(at), len(numbers)))
        )  # fmt: skip
        columns = {
            name: pl.Series(name, np.ascontiguousarray(found_NF[:, n]), nan_to_null=True)
            for n, name in enumerate(numbers)
        }
        columns |= {name: self._lists(name, at) for name in self.lists}
        return pl.DataFrame([columns[name] for name in self.unseen])

    @property
    def table(self) -> pl.DataFrame:
        """All keys and their values, sorted by key."""
        columns, codes = {}, np.asarray(self.codes)
        for (name, dtype), distinct in reversed(list(zip(self.keys.items(), self.distinct, strict=True))):
            codes, rank = np.divmod(codes, max(len(distinct), 1))
            columns[name] = pl.Series(name, np.asarray(distinct)[rank]).cast(dtype)
        keys = pl.DataFrame([columns[name] for name in self.keys])
        return pl.concat([keys, self.find(keys)], how="horizontal").sort(list(self.keys))

    def _positions(self, asked: pl.DataFrame) -> Array:
        """Return each asked row's position in the table, -1 where its key is not there."""
        code, known = np.zeros(asked.height, np.int64), np.ones(asked.height, np.bool_)
        for (name, dtype), distinct in zip(self.keys.items(), self.distinct, strict=True):
            values = asked[name].cast(dtype, strict=False)
            known &= values.is_not_null().to_numpy()
            plain = _plain(values.fill_null("" if dtype == pl.String else False if dtype == pl.Boolean else 0))
            rank, same = _search(distinct, plain)
            known &= same
            code = code * max(len(distinct), 1) + rank
        at, same = _search(self.codes, code)
        return np.where(known & same, at, -1)

    def _lists(self, name: str, at: Array) -> pl.Series:
        words, bounds = self.texts[name]
        found = [words[bounds[n] : bounds[n + 1]].tolist() if n >= 0 else self.unseen[name] for n in at.tolist()]
        return pl.Series(name, found, dtype=_LIST)


def write_online(
    folder: Path, name: str, keys: Sequence[str], table: pl.DataFrame, unseen: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a view's table (keys and values) as `name.*.npy` and return what `open_online` needs to know."""
    types = {key: table.schema[key] if str(table.schema[key]) in _KEY_TYPES else pl.String() for key in keys}
    columns = [_plain(table[key].cast(dtype)) for key, dtype in types.items()]
    distinct = [np.unique(column) for column in columns]
    if math.prod(max(len(values), 1) for values in distinct) >= 2**62:
        raise ArtifactError(f"feature view {name}: its keys have too many combinations for an online table")
    code = np.zeros(table.height, np.int64)
    for column, values in zip(columns, distinct, strict=True):
        code = code * max(len(values), 1) + np.searchsorted(values, column)
    order = np.argsort(code, kind="stable")
    lists = [column for column in unseen if table.schema[column] == _LIST]
    numbers = table.select(column for column in unseen if column not in lists)
    values_KF = numbers.cast(pl.Float32).fill_null(np.nan).to_numpy().reshape(table.height, numbers.width)
    parts = {"codes": code[order], "values": values_KF[order]}
    parts |= {f"key{n}": values for n, values in enumerate(distinct)}
    for n, named in enumerate(lists):
        ordered = table[named].gather(order)
        parts[f"list{n}.words"] = _plain(ordered.explode().drop_nulls())
        parts[f"list{n}.bounds"] = np.concatenate([[0], np.cumsum(ordered.list.len().to_numpy())]).astype(np.int64)
    for part, values in parts.items():
        np.save(folder / f"{name}.{part}.npy", np.ascontiguousarray(values), allow_pickle=False)
    return {"name": name, "keys": {key: str(dtype) for key, dtype in types.items()}, "unseen": dict(unseen),
            "lists": lists}  # fmt: skip


def open_online(folder: Path, entry: Mapping[str, Any]) -> OnlineView:
    """Map a view's table into memory; ArtifactError when its shape is not what the entry says."""

    def part(word: str) -> Array:
        mapped: Array = np.load(folder / f"{entry['name']}.{word}.npy", mmap_mode="r", allow_pickle=False)
        return mapped

    keys = {key: _KEY_TYPES[dtype] for key, dtype in entry["keys"].items()}
    lists, codes, values_KF = tuple(entry["lists"]), part("codes"), part("values")
    if values_KF.shape != (len(codes), len(entry["unseen"]) - len(lists)):
        raise ArtifactError(f"{folder}: {entry['name']}.values.npy has other columns than its index says")
    texts = {name: (part(f"list{n}.words"), part(f"list{n}.bounds")) for n, name in enumerate(lists)}
    distinct = tuple(part(f"key{n}") for n in range(len(keys)))
    return OnlineView(entry["name"], keys, entry["unseen"], lists, distinct, codes, values_KF, texts)


def _search(values: Array, asked: Array) -> tuple[Array, Array]:
    """Return each asked value's position among the sorted values (0 where it is not there), and whether it is."""
    if not len(values):
        return np.zeros(len(asked), np.int64), np.zeros(len(asked), np.bool_)
    at = np.minimum(np.searchsorted(values, asked), len(values) - 1)
    same = np.asarray(values[at] == asked)
    return np.where(same, at, 0), same


def _plain(values: pl.Series) -> Array:
    """Return a series without nulls as an array that a file can map: whole numbers, or text of one width."""
    if values.dtype == pl.String:
        return np.array(values.to_list(), dtype=np.str_) if len(values) else np.array([], dtype="U1")
    return values.cast(pl.Int64).to_numpy()


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
