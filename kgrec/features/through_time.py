"""A view over rows that do not fit at once and share few keys: slice after slice of time, its state carried on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from kgrec.columns import PART, TIME
from kgrec.features.day_end import latest_of_state
from kgrec.features.feature_log import ROW, SIGHTINGS, SOURCE
from kgrec.features.latest import LatestView
from kgrec.features.of_share import World, columns_read
from kgrec.features.shares import Slice
from kgrec.features.spans import Sight
from kgrec.features.state import ViewState, before, carry_on, codes_of, with_tail
from kgrec.features.view import FeatureView
from kgrec.features.windows import values_as_of

_AT = "__at"


@dataclass(frozen=True)
class SlicesOfView:
    """One view that `carries_on`, over slices of time that follow each other. at_once: rows described at a time."""

    world: World
    view: FeatureView
    slices: Sequence[Slice]
    at_once: int

    def rows(self) -> Iterator[pl.DataFrame]:
        """Yield `__row` and the view's columns of all labelled rows, in some order."""
        for number, sighting in enumerate(SIGHTINGS):
            state = ViewState(self.slices[0].low)
            for part in self.slices:
                seen = self._sources(part, pl.col(PART).is_in(sighting.sources))
                sources = with_tail(self.view, state, seen)
                for asked in self._asked(number, part):
                    yield self._described(number, state, sources, asked)
                state = carry_on(self.view, state, seen, part.high)

    def latest(self) -> LatestView:
        """Return the view's value per key as of just after the last row of all."""
        state = ViewState(self.slices[0].low)
        for part in self.slices:
            until = min(part.high, self.world.end)
            state = carry_on(self.view, state, self._sources(part, pl.lit(True)), until)
        rates = self.world.rates[self.view.source.name].at_end()
        return latest_of_state(self.view, state, {kind: float(rate[0]) for kind, rate in rates.items()})

    def _sources(self, part: Slice, seen: pl.Expr) -> pl.DataFrame:
        found = self.world.log.read(columns_read([self.view]), part.chosen & seen)
        return found.filter(pl.col(SOURCE) == self.view.source.name).drop(ROW).sort(TIME, maintain_order=True)

    def _asked(self, number: int, part: Slice) -> Iterator[pl.DataFrame]:
        """Yield the labelled rows that are described as of an instant of the slice, and that instant."""
        at = self.world.span.asked_at(number)
        chosen = pl.col(PART).is_in(SIGHTINGS[number].targets) & at.is_between(part.low, part.high, closed="left")
        needed = columns_read([self.view])
        for start in range(0, self.world.span.labelled, self.at_once):
            found = self.world.log.labelled_where(
                needed, lambda rows: rows.filter(chosen), start, self.at_once
            ).with_columns(at.alias(_AT))
            if found.height:
                yield found

    def _described(self, number: int, state: ViewState, sources: pl.DataFrame, asked: pl.DataFrame) -> pl.DataFrame:
        at = asked[_AT].to_numpy()
        rates = self.world.rates[self.view.source.name].as_of(number, at)
        past = before(self.view, state, asked, sources)
        source_key, target_key = codes_of(self.view, sources, asked)
        values = values_as_of(self.view, Sight(sources, at), source_key, target_key, rates, past)
        return pl.concat([asked.select(ROW), values], how="horizontal")
