"""Files of a glob that were read before: their computed columns are kept, so that only new partitions are parsed.

What is kept of a file depends on its bytes, its name, the expressions and the code, and on nothing else; what spans
files (numbering, repeated rows, faults that look at the clock) is computed anew each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def computed_by_partition(
    partitions: Sequence[Partition], values: Mapping[str, pl.Expr], folder: Path, row_group_size: int
) -> pl.LazyFrame:
    """Return the values of all rows in the order of the partitions; those of a file that was seen before are read back.

    values: expressions that look at one row alone. folder: holds a file for each partition, and none for others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = {name: expression.meta.serialize(format="json") for name, expression in values.items()}
    how = [pl.__version__, code_version(), row_group_size, asked]
    files = []
    for partition in partitions:
        schema = {name: str(dtype) for name, dtype in partition.rows.collect_schema().items()}
        file = folder / f"{fingerprint([partition.digest, how, schema])[:40]}.arrow"
        if not file.exists():
            aside = file.with_name(f".{file.name}.part")
            computed = partition.rows.select(**values)
            computed.sink_ipc(aside, compression="lz4", maintain_order=True, record_batch_size=row_group_size)
            aside.replace(file)
        files.append(file)
    for stale in set(folder.iterdir()) - set(files):
        stale.unlink()
    return pl.concat([pl.scan_ipc(file, glob=False) for file in files])
