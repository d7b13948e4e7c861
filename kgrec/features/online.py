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
from kgrec.row_files import RowWriter

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
    folder: Path, name: str, keys: Sequence[str], parts: Sequence[pl.LazyFrame], unseen: Mapping[str, Any]
) -> dict[str, Any]:  # fmt: skip
    """Write a view's table (keys and values) as `name.*.npy` and return what `open_online` needs to know.

    parts: of the table, in the order of their keys; one is held at a time, and the distinct values of each key.
    """
    schema = parts[0].collect_schema()
    types = {key: schema[key] if str(schema[key]) in _KEY_TYPES else pl.String() for key in keys}
    distinct = [_distinct(parts, key, dtype) for key, dtype in types.items()]
    if math.prod(max(len(values), 1) for values in distinct) >= 2**62:
        raise ArtifactError(f"feature view {name}: its keys have too many combinations for an online table")
    lists = [column for column in unseen if schema[column] == _LIST]
    for n, values in enumerate(distinct):
        np.save(folder / f"{name}.key{n}.npy", np.ascontiguousarray(values), allow_pickle=False)
    height = sum(part.select(pl.len()).collect().item() for part in parts)
    words: list[list[Array]] = [[] for _ in lists]
    lengths: list[list[Array]] = [[] for _ in lists]
    numbers, last = [column for column in unseen if column not in lists], -1
    with (
        RowWriter(folder / f"{name}.codes.npy", (height,), np.int64) as codes,
        RowWriter(folder / f"{name}.values.npy", (height, len(numbers)), np.float32) as values_KF,
    ):
        for part in parts:
            table = part.collect()
            code = _codes(table, types, distinct)
            order = np.argsort(code, kind="stable")
            if len(code) and code[order[0]] <= last:
                raise ValueError(f"feature view {name}: its parts are not in the order of their keys")
            last = code[order[-1]] if len(code) else last
            codes.append(code[order])
            plain = table.select(numbers).cast(pl.Float32).fill_null(np.nan).to_numpy()
            values_KF.append(plain.reshape(table.height, len(numbers))[order])
            for n, column in enumerate(lists):
                ordered = table[column].gather(order)
                words[n].append(_plain(ordered.explode().drop_nulls()))
                lengths[n].append(ordered.list.len().to_numpy())
    for n in range(len(lists)):
        bounds = np.concatenate([[0], np.cumsum(np.concatenate(lengths[n]))]).astype(np.int64)
        np.save(folder / f"{name}.list{n}.words.npy", np.concatenate(words[n]), allow_pickle=False)
        np.save(folder / f"{name}.list{n}.bounds.npy", bounds, allow_pickle=False)
    return {"name": name, "keys": {key: str(dtype) for key, dtype in types.items()}, "unseen": dict(unseen),
            "lists": lists}  # fmt: skip


def _distinct(parts: Sequence[pl.LazyFrame], key: str, dtype: pl.DataType) -> Array:
    """Return the distinct values of a key, ascending."""
    found = [_plain(part.select(pl.col(key).cast(dtype)).unique().collect()[key]) for part in parts]
    return np.unique(np.concatenate(found))


def _codes(table: pl.DataFrame, types: Mapping[str, pl.DataType], distinct: Sequence[Array]) -> Array:
    code = np.zeros(table.height, np.int64)
    for (key, dtype), values in zip(types.items(), distinct, strict=True):
        code = code * max(len(values), 1) + np.searchsorted(values, _plain(table[key].cast(dtype)))
    return code


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
