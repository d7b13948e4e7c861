"""Files of a glob that were read before: their computed columns are kept, so that only new partitions are parsed.

Each file is parsed by itself, wherever its folders can be reached. What is kept of a file depends on its bytes, its
name, the expressions and the code, and on nothing else; what spans files (numbering, repeated rows, faults that look at
the clock) is computed anew each time.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from kgrec.artifacts import code_version, fingerprint

FOLDER: Final = "partitions"


@dataclass(frozen=True)
class Partition:
    """One file of a table: the digest of name and bytes, and its rows in the columns and dtypes of the whole table."""

    digest: str
    rows: pl.LazyFrame


@dataclass(frozen=True)
class Parsing:
    """A file that is to be parsed: what is computed of its rows, and the Arrow file that takes it."""

    computed: pl.LazyFrame
    file: Path
    row_group_size: int


ParseAll = Callable[[Sequence[Parsing]], None]
"""Calls `parse` on each, in any order and anywhere, and returns when all are done; raises what one of them raised."""


def parse(parsing: Parsing) -> None:
    """Compute the values of one file; they appear whole or not at all."""
    own = f"{platform.node()}.{os.getpid()}"  # a scheduler that takes a process for dead lets another do the same
    aside = parsing.file.with_name(f".{parsing.file.name}.{own}.part")
    parsing.computed.sink_ipc(aside, compression="lz4", maintain_order=True, record_batch_size=parsing.row_group_size)
    aside.replace(parsing.file)


def parse_in_turn(parsings: Sequence[Parsing]) -> None:
    """Parse one file after the other in this process."""
    for parsing in parsings:
        parse(parsing)


def computed_by_partition(
    partitions: Sequence[Partition], values: Mapping[str, pl.Expr], folder: Path, row_group_size: int,
    parse_all: ParseAll = parse_in_turn,
) -> pl.LazyFrame:  # fmt: skip
    """Return the values of all rows in the order of the partitions; those of a file that was seen before are read back.

    values: expressions that look at one row alone. folder: holds a file for each partition, and none for others.
    """
    folder = folder.absolute()  # whoever parses may stand elsewhere
    folder.mkdir(parents=True, exist_ok=True)
    asked = {name: expression.meta.serialize(format="json") for name, expression in values.items()}
    how = [pl.__version__, code_version(), row_group_size, asked]
    files, missing = [], []
    for partition in partitions:
        schema = {name: str(dtype) for name, dtype in partition.rows.collect_schema().items()}
        file = folder / f"{fingerprint([partition.digest, how, schema])[:40]}.arrow"
        if not file.exists() and file not in files:
            missing.append(Parsing(partition.rows.select(**values), file, row_group_size))
        files.append(file)
    if missing:
        parse_all(missing)
    for stale in set(folder.iterdir()) - set(files):
        stale.unlink()
    return pl.concat([pl.scan_ipc(file, glob=False) for file in files])
