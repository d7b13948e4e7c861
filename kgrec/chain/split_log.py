"""The log in rows, each with its part: streamed where the part follows from the row, held where it needs all rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.encoded import EVENTS, LABELLED
from kgrec.config import RunConfig
from kgrec.data.exposures import judge_within_parts
from kgrec.data.split import assign_exposures, assign_parts
from kgrec.data.split_rule import SplitRule, find_rule
from kgrec.data.table_files import write_rows
from kgrec.data.vocabulary import Vocabulary

BYTES_OF_A_TIME: Final = 64  # of a row whose time is compared: sorted, distinct, counted
BYTES_TO_JUDGE: Final = 400  # of a row while what came of it is looked for, the part before its user's id


@dataclass(frozen=True)
class LogSplitter:
    """An ingested log, the vocabularies that give its ids their rows, and the config of the run."""

    ingested: Artifact
    config: RunConfig
    users: Vocabulary
    items: Vocabulary

    def write(self, out: Path) -> dict[str, Any]:
        """Write `events` and `labelled` (.parquet) in rows with their part; return facts."""
        facts = self.ingested.facts
        has_time, has_impressions = bool(facts["has_time"]), self.ingested.has("exposures.parquet")
        events = pl.scan_parquet(self.ingested.file("events.parquet"), glob=False)
        at_once = self.config.resources.rows(BYTES_OF_A_TIME)
        rule = find_rule(events, self.config.split, has_time=has_time, at_once=at_once)
        summary = self._held(out, has_time) if rule is None else self._streamed(out, rule, has_time)
        return {"split": summary, "impressions": has_impressions, "has_time": has_time}

    @property
    def _judges_again(self) -> bool:
        return self.config.interactions is not None and self.config.interactions.layout == "events"

    def _in_rows(self, log: pl.LazyFrame, part: pl.Expr) -> pl.LazyFrame:
        columns = log.collect_schema().names()
        with_parts = log.with_columns(part.alias(c.PART))
        found = self.items.with_rows(self.users.with_rows(with_parts, c.USER, c.USER_ROW), c.ITEM, c.ITEM_ROW)
        others = [name for name in columns if name not in (c.USER, c.ITEM, c.PART)]
        return found.select(c.USER_ROW, c.ITEM_ROW, *others, c.PART)

    def _streamed(self, out: Path, rule: SplitRule, has_time: bool) -> dict[str, Any]:
        events = pl.scan_parquet(self.ingested.file("events.parquet"), glob=False)
        write_rows(self._in_rows(events, rule.part), out / EVENTS)
        written = pl.scan_parquet(out / EVENTS, glob=False)
        if self.ingested.has("exposures.parquet"):
            shown = self._in_rows(pl.scan_parquet(self.ingested.file("exposures.parquet"), glob=False), rule.part)
        else:
            shown = written.filter(c.CLICK)
        if not self._judges_again:
            write_rows(shown, out / LABELLED)
            return rule.summary
        aside = out / f".{LABELLED}"
        write_rows(shown, aside)
        shown = pl.scan_parquet(aside, glob=False)
        write_rows(self._labelled_within_parts(shown, written, has_time), out / LABELLED)
        aside.unlink()
        return rule.summary

    def _labelled_within_parts(self, shown: pl.LazyFrame, events: pl.LazyFrame, has_time: bool) -> pl.LazyFrame:
        """Say of each shown or clicked row what came of it within its own part, a share of the users at a time."""
        names = shown.collect_schema().names()
        labels = [name for name in (c.CLICK, c.CONVERSION) if name in names]
        own = [c.USER_ROW, c.ITEM_ROW, *([c.TIME] if c.TIME in names else []), c.PART]
        rows, acts = (frame.select(pl.len()).collect().item() for frame in (shown, events))
        shares = max(1, -(-(rows + acts) // self.config.resources.rows(BYTES_TO_JUDGE)))
        found = []
        for share in range(shares):
            mine = pl.col(c.USER_ROW) % shares == share
            numbered = shown.select(own).with_row_index("row").filter(mine).collect(engine="streaming")
            told = judge_within_parts(
                _as_ids(numbered), _as_ids(events.select(*own, *labels).filter(mine).collect(engine="streaming")),
                labels, has_time=has_time,
            )  # fmt: skip
            found.append(told.with_columns(numbered["row"]))
        judged = pl.concat(found).sort("row").select(labels)
        zipped = pl.concat([shown.drop(labels), judged.lazy()], how="horizontal")
        return zipped.select(names)

    def _held(self, out: Path, has_time: bool) -> dict[str, Any]:
        """The parts of kinds that look at all rows at once."""
        config = self.config
        events = pl.read_parquet(self.ingested.file("events.parquet"))
        assignment = assign_parts(events, config.split, config.seed, has_time=has_time)
        write_rows(self._in_rows(events.lazy(), pl.lit(assignment.parts)), out / EVENTS)
        if self.ingested.has("exposures.parquet"):
            labelled = pl.read_parquet(self.ingested.file("exposures.parquet"))
            parts = assign_exposures(labelled, events, assignment, config.split, config.seed)
        else:
            clicked = events[c.CLICK]
            labelled, parts = events.filter(clicked), assignment.parts.filter(clicked)
        if self._judges_again:
            shown = labelled.with_columns(parts.alias(c.PART))
            labels = [name for name in (c.CLICK, c.CONVERSION) if name in labelled.columns]
            acts = events.with_columns(assignment.parts.alias(c.PART))
            found = judge_within_parts(shown, acts, labels, has_time=has_time)
            labelled = labelled.with_columns(found[name] for name in labels)
        write_rows(self._in_rows(labelled.lazy(), pl.lit(parts)), out / LABELLED)
        return assignment.summary


def _as_ids(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows in the place of ids, as text: what is judged needs only to know which are equal."""
    return frame.rename({c.USER_ROW: c.USER, c.ITEM_ROW: c.ITEM}).with_columns(pl.col(c.USER, c.ITEM).cast(pl.String))
