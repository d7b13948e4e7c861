"""What the service would look up after a day: each key's values at the midnight that ends it, from the day's state.

No row of the log is read again, so this costs the keys, not the days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from kgrec.artifacts import Artifact
from kgrec.features.aggregations import Of
from kgrec.features.derived import Derived
from kgrec.features.latest import LatestFeatures, LatestView
from kgrec.features.spans import Array, Sight
from kgrec.features.state import ViewState, codes_of
from kgrec.features.view import FeatureView
from kgrec.features.windows import finished, rate_kinds, raw_as_of, unseen_values


def latest_after(day: Artifact, views: Sequence[FeatureView], derived: Sequence[Derived]) -> LatestFeatures:
    """Return the latest features as of the end of a day; views and derived are those that its rows were made of."""
    at = int(day.facts["until"])
    totals = {Of(kind): pair for kind, pair in day.facts["totals"].items()}
    priors = {kind: (totals[kind][0] + 1) / (totals[kind][1] + 2) for kind in rate_kinds(views)}
    found = [latest_of_state(view, ViewState.load(day.path, view, at), priors) for view in views]
    return LatestFeatures(tuple(found), tuple(derived))


def latest_of_state(view: FeatureView, state: ViewState, priors: Mapping[Of, float]) -> LatestView:
    """Return a view's value per key as of the instant of its state, given the global rates then."""
    keys = list(view.keys)
    if view.lookback is None:
        if state.raw is None:
            raise ValueError(f"the day holds no state of the view {view.name}")
        named, raw = state.raw.select(keys), state.raw.drop(keys)
        at = np.full(named.height, state.at)
    else:
        if state.tail is None:
            raise ValueError(f"the day holds no rows of the view {view.name}")
        named = state.tail.select(keys).drop_nulls().unique().sort(keys)
        at = np.full(named.height, state.at)
        raw = raw_as_of(view, Sight(state.tail, at), *codes_of(view, state.tail, named))
    values = finished(view, raw, at, {kind: np.full(len(at), prior) for kind, prior in priors.items()})
    once: dict[Of, Array] = {kind: np.array([prior]) for kind, prior in priors.items()}
    table = pl.concat([named, values], how="horizontal").sort(keys)
    return LatestView(view.name, view.keys, table, unseen_values(view, once))
