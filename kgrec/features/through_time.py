"""A view over rows that do not fit at once and share few keys: slice after slice of time, its state carried on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl

from kgrec.columns import PART, TIME
from kgrec.features.day_end import latest_of_state
from kgrec.features.feature_log import ROW, SIGHTINGS, SOURCE
from kgrec.features.latest import LatestView
from kgrec.features.of_share import World, columns_read
from kgrec.features.shares import Slice
from kgrec.features.spans import Sight
from kgrec.features.state import ViewState, before, carry_on, codes_of, with_tail
from kgrec.features.view import LABELLED, FeatureView
from kgrec.features.windows import values_as_of

_AT = "__at"


@dataclass(frozen=True)
class SlicesOfView:
    """One view that `carries_on`, over the world's slices, one after the other. at_once: rows described at a time."""

    world: World
    view: FeatureView
    at_once: int
    _last: list[ViewState] = field(default_factory=list)

    def rows(self) -> Iterator[pl.DataFrame]:
        """Yield `__row` and the view's columns of all labelled rows, in some order; then `latest` is known."""
        states = [ViewState(self._begin)] * (len(SIGHTINGS) + 1)
        for part, log in self.world.slices:
            read = log.read(columns_read([self.view]))
            own = read.filter(pl.col(SOURCE) == self.view.source.name).drop(ROW).sort(TIME, maintain_order=True)
            shown = read.filter(pl.col(SOURCE) == LABELLED.name)
            visible = [own.filter(pl.col(PART).is_in(sighting.sources)) for sighting in SIGHTINGS]
            for number, seen in enumerate(visible):
                sources = with_tail(self.view, states[number], seen)
                for asked in self._asked(number, part, shown):
                    yield self._described(number, states[number], sources, asked)
            states = self._carried_on(states, [*visible, own], part)
        self._last.append(states[-1])

    def _carried_on(self, states: Sequence[ViewState], rows: Sequence[pl.DataFrame], part: Slice) -> list[ViewState]:
        """Return each state after its rows; who sees no more than the one before, now and until now, shares its state.

        Of a log split by time that is everybody, until the first row of validation.
        """
        untils = [part.high] * len(SIGHTINGS) + [min(part.high, self.world.end)]
        found: list[ViewState] = []
        for number, (state, seen, until) in enumerate(zip(states, rows, untils, strict=True)):
            same = number and state is states[number - 1] and seen.height == rows[number - 1].height
            if same and until == untils[number - 1]:
                found.append(found[-1])
            else:
                found.append(carry_on(self.view, state, seen, until))
        return found

    def latest(self) -> LatestView:
        """Return the view's value per key as of just after the last row of all, once all rows were taken."""
        rates = self.world.rates[self.view.source.name].at_end()
        return latest_of_state(self.view, self._last[-1], {kind: float(rate[0]) for kind, rate in rates.items()})

    @property
    def _begin(self) -> int:
        return self.world.slices[0][0].low

    def _asked(self, number: int, part: Slice, shown: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Yield the labelled rows that are described as of an instant of the slice, and that instant.

        shown: those of the slice's own time. Rows of another time are described there only where their sight ends, and
        undated ones in the first slice.
        """
        at, span = self.world.span.asked_at(number), self.world.span
        inside = at.is_between(part.low, part.high, closed="left")
        chosen = pl.col(PART).is_in(SIGHTINGS[number].targets) & inside
        found = shown.filter(chosen)
        if found.height:
            yield found.with_columns(at.alias(_AT))
        end = span.ends[number]
        ends_here = end is not None and part.low <= end + 1 < part.high
        if not ends_here and not (span.undated and part.low == self._begin):
            return
        elsewhere = chosen & part.chosen.not_().fill_null(True)
        needed = columns_read([self.view])
        for start in range(0, span.labelled, self.at_once):
            found = self.world.log.labelled_where(needed, lambda rows: rows.filter(elsewhere), start, self.at_once)
            if found.height:
                yield found.with_columns(at.alias(_AT))

    def _described(self, number: int, state: ViewState, sources: pl.DataFrame, asked: pl.DataFrame) -> pl.DataFrame:
        at = asked[_AT].to_numpy()
        rates = self.world.rates[self.view.source.name].as_of(number, at)
        past = before(self.view, state, asked, sources)
        source_key, target_key = codes_of(self.view, sources, asked)
        values = values_as_of(self.view, Sight(sources, at), source_key, target_key, rates, past)
        return pl.concat([asked.select(ROW), values], how="horizontal")
