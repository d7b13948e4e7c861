"""What a monitor looks at: the rows a version was trained on, and the rows of a window that came since."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from kgrec import columns as c
from kgrec.artifacts import MANIFEST, Artifact, load_artifact
from kgrec.chain.context import Run
from kgrec.chain.encoded import LABELLED
from kgrec.chain.prepare import EVENTS
from kgrec.chain.prepare import ingest as ingest_stage
from kgrec.data.exposures import judge_within_parts
from kgrec.errors import InputError, Problem
from kgrec.serving.recommend import Version, open_version
from kgrec.serving.versions import VersionRecord, promoted

_IDS = (c.USER, c.ITEM)


@dataclass(frozen=True)
class Window:
    """A half-open stretch of time, [since, until), in UTC."""

    since: datetime
    until: datetime

    def of(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the rows inside."""
        return frame.filter((pl.col(c.TIME) >= self.since) & (pl.col(c.TIME) < self.until))


@dataclass(frozen=True)
class Past:
    """What the promoted version came from: its record, itself, and the artifacts of its run."""

    record: VersionRecord
    version: Version
    ingested: Artifact
    log: Artifact
    evaluated: Artifact


@dataclass(frozen=True)
class Rows:
    """Events, labelled rows (both with raw ids and times) and side tables; part says where the split put a row."""

    events: pl.DataFrame
    labelled: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame
    triples: pl.DataFrame


def past_of(run: Run) -> Past:
    """Return the promoted version of the config's name and what it was made from; InputError where that is gone."""
    record = promoted(run.workspace)
    if record.name != run.config.name:
        what = f"the promoted version {record.version} is of {record.name!r}, the config of {run.config.name!r}"
        raise InputError(Problem(run.loaded.source, what, "name the config of what is served, or another --workspace"))
    version = open_version(run.workspace.store.path("version", record.key), record.version)
    log = made_artifact(run, record, "split", version.artifact.inputs["split"])
    evaluated = made_artifact(run, record, "evaluate", version.artifact.inputs["evaluate"])
    return Past(record, version, made_artifact(run, record, "ingest", log.inputs["ingest"]), log, evaluated)


def made_artifact(run: Run, record: VersionRecord, kind: str, digest: str) -> Artifact:
    """Return the artifact of a kind with this content; InputError when it is gone."""
    for manifest in sorted((run.workspace.store.root / kind).glob(f"*/{MANIFEST}")):
        artifact = load_artifact(manifest.parent, kind, verify=False)
        if artifact.digest == digest:
            artifact.verify()
            return artifact
    what = f"the {kind} that version {record.version} was made from is no longer there: nothing to compare with"
    raise InputError(Problem(str(run.workspace.root), what, "promote a version that this workspace still has whole"))


def then_rows(past: Past) -> Rows:
    """Return what the version was made from, each row with its part."""
    log = pl.read_parquet(past.log.file(EVENTS))
    events = pl.read_parquet(past.ingested.file("events.parquet")).with_columns(log[c.PART])
    labelled = pl.read_parquet(past.log.file(LABELLED))
    named = labelled.select(
        past.version.users.ids(labelled[c.USER_ROW]).alias(c.USER),
        past.version.items.ids(labelled[c.ITEM_ROW]).alias(c.ITEM),
        pl.exclude(c.USER_ROW, c.ITEM_ROW),
    )
    return Rows(events, named, *_tables(past.ingested))


def now_rows(run: Run, window: Window | None, since: datetime) -> tuple[Rows, pl.DataFrame, Window]:
    """Ingest what is there now; return the rows of the window, the events before it, and the window.

    window None: from `since` to the last event. InputError without a log, times, or any event in the window.
    """
    ingested = ingest_stage(run)
    if not ingested.has("events.parquet") or not ingested.facts["has_time"]:
        what = "a window of time needs a log with times"
        raise InputError(Problem(run.loaded.source, what, "name the time column in [interactions] columns"))
    events = pl.read_parquet(ingested.file("events.parquet"))
    if window is None:
        last = events[c.TIME].max()
        until = (
            max(since, last + pl.Series([1]).cast(pl.Duration("us")).item()) if isinstance(last, datetime) else since
        )
        window = Window(since, until)
    fresh = window.of(events)
    if fresh.is_empty():
        what = f"no event from {window.since.isoformat()} to {window.until.isoformat()}"
        example = f"the log reaches from {events[c.TIME].min()!s} to {events[c.TIME].max()!s}"
        raise InputError(Problem("--since", what, "name an earlier instant, or add the new rows", example=example))
    earlier = events.filter(pl.col(c.TIME) < window.since)
    return Rows(fresh, _labelled(run, ingested, fresh, window), *_tables(ingested)), earlier, window


def _labelled(run: Run, ingested: Artifact, fresh: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Return the shown (or, without impressions, clicked) rows of the window and what came of them within it."""
    shown = ingested.has("exposures.parquet")
    rows = window.of(pl.read_parquet(ingested.file("exposures.parquet"))) if shown else fresh.filter(c.CLICK)
    if run.config.interactions is None or run.config.interactions.layout != "events":
        return rows
    labels = [name for name in (c.CLICK, c.CONVERSION) if name in rows.columns]
    part = pl.lit(c.TEST, c.PART_TYPE).alias(c.PART)
    found = judge_within_parts(rows.with_columns(part), fresh.with_columns(part), labels, has_time=True)
    return rows.with_columns(found[name] for name in labels)


def _tables(ingested: Artifact) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    users, items, triples = (
        pl.read_parquet(ingested.file(f"{name}.parquet")) for name in ("users", "items", "triples")
    )
    return users, items.drop(c.TITLE), triples.select(c.HEAD, c.RELATION, c.TAIL)
