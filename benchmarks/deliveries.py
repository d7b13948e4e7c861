"""What `fortnight.py` delivers day by day, what goes wrong with it, and what should be counted in the end."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl

from kgrec import columns as c

INCIDENTS = {2: "half of the day comes late", 4: "the file of the day before comes again", 6: "the file is cut off",
             8: "rows without a user", 9: "a hopeless model", 11: "the worker is killed",
             13: "nothing new"}  # fmt: skip


class Deliveries:
    """Writes each day's files into a folder, and remembers what should be counted in the end."""

    def __init__(self, log: pl.DataFrame, days: int, folder: Path) -> None:
        day = pl.from_epoch("timestamp").dt.date()
        names = log.select(day.alias("day"))["day"].unique().sort().tail(days).to_list()
        self.folder, self.names = folder, [str(name) for name in names]
        self.incidents = {-(-number * days // 14): what for number, what in INCIDENTS.items()}
        self.before = log.filter(day < names[0])
        self.days = [log.filter(day == name) for name in names]
        self.late: list[tuple[str, pl.DataFrame]] = []
        self.truth = self.before.clear()
        self.repeated = self.without_user = 0

    def _write(self, name: str, rows: pl.DataFrame) -> None:
        rows.write_parquet(self.folder / f"{name}.parquet")
        self.truth = pl.concat([self.truth, rows.drop_nulls(c.USER)])

    def deliver(self, number: int) -> None:
        """Deliver day `number`, counted from 1; 0 is all that was before."""
        for name, rows in self.late:
            self._write(name, rows)
        self.late = []
        if number == 0:
            self._write("before", self.before)
            return
        rows, name, incident = self.days[number - 1], f"day-{number:02d}", self.incidents.get(number, "")
        if "late" in incident:
            half = rows.height // 2
            self.late.append((f"{name}-late", rows.tail(rows.height - half)))
            rows = rows.head(half)
        if "again" in incident:
            again = self.folder / f"day-{number - 1:02d}.parquet"
            shutil.copy(again, self.folder / f"day-{number - 1:02d}-again.parquet")
            self.repeated += pl.read_parquet(again).height
        if "without" in incident:
            nobody = rows.head(7).with_columns(pl.lit(None, rows[c.USER].dtype).alias(c.USER))
            self.without_user += nobody.height
            rows = pl.concat([rows, nobody])
        if "nothing" in incident:
            self.late.append((name, rows))
            return
        if "cut" in incident:
            self.late.append((name, rows))
            path = self.folder / f"{name}.parquet"
            rows.write_parquet(path)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            return
        self._write(name, rows)
