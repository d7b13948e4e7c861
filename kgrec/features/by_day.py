"""Feature rows kept by day: a day is computed from its own rows and the state of the day before, and never twice.

A day's artifact is keyed by the content of its rows, by the state it starts from and by the views. So a new day costs a
day; a late event reopens its own day and those after it, until a day ends in the state it ended in before; and
computing everything at once goes through the very same steps, so it gives the same bits. A pointer that is replaced by
one rename says which days make up the table now; old tables stay readable under the name of their snapshot.

Here every row sees all rows strictly before it, whatever part of a split they belong to: this is the table of a log,
not of one training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from kgrec.artifacts import (
    MANIFEST,
    Artifact,
    ArtifactStore,
    canonical_json,
    fingerprint,
    load_artifact,
    write_atomically,
)
from kgrec.columns import ITEM_ROW, PART, TIME, USER_ROW
from kgrec.errors import ArtifactError, InputError, Problem
from kgrec.features.aggregations import Of, needed_columns
from kgrec.features.day_end import latest_after
from kgrec.features.declarations import Declaration, check_declarations, node_views, split_declarations
from kgrec.features.derived import Derived, compute_derived, in_order
from kgrec.features.keys import categorical_keys, in_utc
from kgrec.features.latest import LatestFeatures, request_columns
from kgrec.features.spans import Sight
from kgrec.features.state import ViewState, before, carry_on, codes_of, with_tail
from kgrec.features.tables import content_digest
from kgrec.features.view import LABELLED, FeatureView, expand_views
from kgrec.features.windows import rate_kinds, values_as_of

KIND: Final = "feature_day"
ROWS: Final = "rows.parquet"
POINTER: Final = "latest.json"
ONLINE: Final = "feature_online"
ONLINE_POINTER: Final = "online.json"
_NOT_BY_DAY: Final = "only views over labelled rows are kept by day"
Totals = Mapping[Of, tuple[int, int]]


@dataclass(frozen=True)
class Backfill:
    """What a backfill did. snapshot: the name under which this very table can be read for ever.

    left_out: view or feature to why it is not there. undated: rows that no day can hold. views, derived: what was
    computed, * keys expanded to columns.
    """

    snapshot: str
    computed: tuple[date, ...]
    reused: tuple[date, ...]
    left_out: Mapping[str, str]
    undated: int
    views: tuple[FeatureView, ...] = ()
    derived: tuple[Derived, ...] = ()


class FeatureDays:
    """A folder of feature rows by day (UTC). One process at a time may write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._store = ArtifactStore(root)

    def backfill(
        self, views: Sequence[Declaration], rows: pl.DataFrame, side_users: pl.DataFrame | None = None,
        side_items: pl.DataFrame | None = None, *, context: Sequence[str] = (),
    ) -> Backfill:  # fmt: skip
        """Bring the table up to date with the log and return which days that took.

        rows: the whole log as known now: `user_row`, `item_row`, `time`, labels and context. Views over events or the
        graph are left out and named. Raises InputError for faulty declarations and for a log without time.
        """
        check_declarations(views)
        if TIME not in rows.columns:
            raise InputError(Problem("features by day", "the log has no time", "name it in interactions.columns.time"))
        frame = _described(in_utc(rows.lazy()).collect(), side_users, side_items, context)
        declared, derived = split_declarations(views)
        choices = categorical_keys(frame.lazy(), side_users, side_items, context)
        chosen, left_out = expand_views(declared, frame.columns, context, choices)
        chosen, foreign = _own_views(chosen, frame.columns)
        columns = [column for view in chosen for column in view.columns]
        made, lacking = in_order(derived, columns)
        foreign |= {one.name: _NOT_BY_DAY for one in node_views(views)}
        left_out |= foreign | {one.name: f"its inputs {', '.join(one.inputs)} are not all there" for one in lacking}
        dated = frame.drop_nulls(TIME).sort(TIME, maintain_order=True)
        days, computed = self._go_through(chosen, dated, {"views": [repr(one) for one in (*chosen, *made)]}, made)
        snapshot = self._point_at(days)
        reused = tuple(day for day in days if day not in computed)
        undated = frame.height - dated.height
        return Backfill(snapshot, tuple(computed), reused, left_out, undated, tuple(chosen), tuple(made))

    def write_online(self, done: Backfill) -> Path | None:
        """Write what the service would look up after the last day of a backfill, and point to it; return its folder.

        A folder of `LatestFeatures`, mapped into memory when it is opened. None where there is no day.
        """
        days = self.days(done.snapshot)
        if not days:
            return None
        last = load_artifact(self._store.path(KIND, list(days.values())[-1]), KIND)
        settings = {"views": [repr(one) for one in (*done.views, *done.derived)]}

        def make(out: Path) -> dict[str, Any]:
            latest_after(last, done.views, done.derived).save(out)
            return {"until": last.facts["until"]}

        made, _ = self._store.build(ONLINE, {"day": last.digest}, settings, make)
        text = json.dumps({"snapshot": done.snapshot, "folder": str(made.path.relative_to(self.root))}) + "\n"
        write_atomically(self.root / ONLINE_POINTER, text.encode())
        return made.path

    def open_online(self) -> LatestFeatures:
        """Open the newest table that `write_online` wrote; ArtifactError when there is none, or it is damaged."""
        path = self.root / ONLINE_POINTER
        try:
            folder = self.root / json.loads(path.read_text(encoding="utf-8"))["folder"]
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"{path}: no online table ({error})") from None
        return LatestFeatures.load(load_artifact(folder, ONLINE).path)

    def read(self, snapshot: str | None = None) -> pl.DataFrame:
        """Return the rows of the latest table, or of a snapshot, by time; ArtifactError when a byte has changed."""
        frames = []
        for key in self.days(snapshot).values():
            artifact = load_artifact(self._store.path(KIND, key), KIND)
            frames.append(pl.read_parquet(artifact.file(ROWS)))
        return pl.concat(frames) if frames else pl.DataFrame()

    def days(self, snapshot: str | None = None) -> dict[date, str]:
        """Return the key of each day's artifact, oldest first; ArtifactError when there is no such table."""
        path = self.root / (POINTER if snapshot is None else f"snapshots/{snapshot}.json")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["days"]
            return {date.fromisoformat(day): key for day, key in sorted(found.items())}
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"{path}: no table of features ({error})") from None

    def _go_through(
        self, views: Sequence[FeatureView], rows: pl.DataFrame, config: Mapping[str, Any], derived: Sequence[Any]
    ) -> tuple[dict[date, str], list[date]]:
        """Build or find each day in turn; a day hands on its artifact, and its state when the next one needs it."""
        days, computed = {}, []
        previous: Artifact | None = None
        for (day,), of_day in rows.group_by(pl.col(TIME).dt.date().alias("day"), maintain_order=True):
            inputs = {"rows": content_digest(of_day), "before": _state_digest(previous) if previous is not None else ""}
            key = self._store.key(KIND, inputs, {**config, "day": str(day)})
            path, start = self._store.path(KIND, key), previous
            if (path / MANIFEST).exists():
                previous = load_artifact(path, KIND, verify=False)  # its bytes are checked when they are read
            else:
                step = _Step(views, derived, of_day, day, start)
                previous, _ = self._store.build(KIND, inputs, {**config, "day": str(day)}, step.write)
                computed.append(day)
            days[day] = key
        return days, computed

    def _point_at(self, days: Mapping[date, str]) -> str:
        described = {"days": {str(day): key for day, key in days.items()}}
        name = fingerprint(described)[:20]
        snapshots = self.root / "snapshots"
        snapshots.mkdir(parents=True, exist_ok=True)
        text = canonical_json(described | {"snapshot": name}).encode()
        write_atomically(snapshots / f"{name}.json", text)
        write_atomically(self.root / POINTER, text)
        return name


@dataclass(frozen=True)
class _Step:
    """One day: its rows, and the artifact of the day before, None on the first."""

    views: Sequence[FeatureView]
    derived: Sequence[Any]
    rows: pl.DataFrame
    day: date
    previous: Artifact | None

    def write(self, out: Path) -> dict[str, Any]:
        """Write the day's feature rows and the state after it; the totals of all days so far are the facts."""
        at, totals = self._start()
        until = _midnight(self.day + timedelta(days=1))
        instants = self.rows[TIME].to_physical().to_numpy()
        kinds = sorted(set(rate_kinds(self.views)))
        priors = Sight(self.rows, instants).global_rates(kinds, totals)
        found = [self.rows.select(USER_ROW, ITEM_ROW, TIME)]
        for view in self.views:
            state = ViewState(at) if self.previous is None else ViewState.load(self.previous.path, view, at)
            sources = with_tail(view, state, self.rows)
            sight = Sight(sources, instants)
            source_key, target_key = codes_of(view, sources, self.rows)
            past = before(view, state, self.rows, sources)
            found.append(values_as_of(view, sight, source_key, target_key, priors, past))
            carry_on(view, state, self.rows, until).save(out, view.name)
        compute_derived(pl.concat(found, how="horizontal"), self.derived).write_parquet(out / ROWS)
        sight = Sight(self.rows, np.zeros(0, np.int64))
        after = {
            kind.value: [totals.get(kind, (0, 0))[0] + int(sight.happened(kind).sum()),
                         totals.get(kind, (0, 0))[1] + int(sight.labelled(kind).sum())]
            for kind in kinds
        }  # fmt: skip
        return {"totals": after, "until": until, "num_rows": self.rows.height}

    def _start(self) -> tuple[int, Totals]:
        if self.previous is None:
            return _midnight(self.day), {}
        self.previous.verify()
        facts = self.previous.facts
        return int(facts["until"]), {Of(kind): (pair[0], pair[1]) for kind, pair in facts["totals"].items()}


def _described(
    rows: pl.DataFrame, side_users: pl.DataFrame | None, side_items: pl.DataFrame | None, context: Sequence[str]
) -> pl.DataFrame:
    beside = request_columns(rows, side_users, side_items, context)
    return pl.concat([rows.select(pl.exclude(PART, *beside.columns)), beside], how="horizontal")


def _own_views(views: Sequence[FeatureView], columns: Sequence[str]) -> tuple[list[FeatureView], dict[str, str]]:
    kept, left_out = [], {}
    for view in views:
        missing = sorted(set().union(*(needed_columns(feature) for feature in view.features)) - set(columns))
        if view.source != LABELLED or view.graph_key:
            left_out[view.name] = _NOT_BY_DAY
        elif missing:
            left_out[view.name] = f"the data has no column {', '.join(missing)}"
        else:
            kept.append(view)
    return kept, left_out


def _state_digest(artifact: Artifact) -> str:
    """Return the fingerprint of what a day hands on; its own rows are not part of that."""
    files = {name: digest for name, digest in artifact.files.items() if name != ROWS}
    return fingerprint({"files": files, "totals": artifact.facts["totals"], "until": artifact.facts["until"]})


def _midnight(day: date) -> int:
    """Return the instant at which a day starts, in microseconds since 1970."""
    return (datetime(day.year, day.month, day.day) - datetime(1970, 1, 1)) // timedelta(microseconds=1)
