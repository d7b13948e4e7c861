"""Splits that follow from a row alone once the boundaries are known: nothing of the log needs to be held.

Kinds time and column are such; per user and at random need all rows (`kgrec.data.split`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from kgrec.columns import PART, PART_TYPE, TIME, TRAIN, VALIDATION
from kgrec.data.boundaries import Boundaries, SplitConfig, SplitKind, part_at
from kgrec.data.order_statistics import streamed_boundaries
from kgrec.data.split import future_in_the_past, refuse_empty, summary_of


@dataclass(frozen=True)
class SplitRule:
    """The part of a row as an expression over its columns, and how it came about."""

    part: pl.Expr
    kind: SplitKind
    boundaries: Boundaries | None
    warnings: tuple[str, ...]
    counts: Mapping[str, int]

    @property
    def summary(self) -> dict[str, Any]:
        """What a report says about this split, JSON-able."""
        return summary_of(self.kind, self.counts, self.boundaries, self.warnings)


def find_rule(events: pl.LazyFrame, config: SplitConfig, *, has_time: bool, at_once: int) -> SplitRule | None:
    """Return the rule of a split, checked like `assign_parts` checks; None where the parts need all rows at once.

    events: `time` where `has_time`, `part` for kind column. Raises what `assign_parts` raises.
    """
    warnings: list[str] = []
    boundaries = None
    if config.kind is SplitKind.TIME and has_time:
        undated = int(events.select(pl.col(TIME).null_count()).collect(engine="streaming").item())
        if undated:
            warnings.append(f"{undated:,} rows have no time and went to train")
        boundaries = streamed_boundaries(events.select(TIME), config, at_once)
        part = part_at(boundaries)
    elif config.kind is SplitKind.COLUMN and PART in events.collect_schema():
        part = pl.col(PART).cast(PART_TYPE)
        said = events.select(
            unsaid=part.is_null().any(), held=(part == VALIDATION).any(), learned=(part == TRAIN).any()
        ).collect(engine="streaming")
        unsaid, held, learned = said.row(0)
        if unsaid or not (held or not learned):
            return None
    else:
        return None
    counted = events.group_by(part.alias(PART)).len().collect(engine="streaming")
    counts = {str(name): int(count) for name, count in counted.iter_rows()}
    refuse_empty(counts, config)
    if has_time:
        dated = events.select(TIME, part.alias(PART))
        warnings += future_in_the_past(dated, counts, config.kind)
    return SplitRule(part, config.kind, boundaries, tuple(warnings), counts)
