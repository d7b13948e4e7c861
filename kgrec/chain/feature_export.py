"""The features of a config beside the chain: written for Feast, and kept by day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from kgrec.artifacts import Artifact
from kgrec.chain.context import Run
from kgrec.chain.encoded import Material
from kgrec.chain.prepare import ingest, material_of, split
from kgrec.columns import PART
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import InputError, Problem
from kgrec.features.by_day import FeatureDays
from kgrec.features.declarations import check_declarations
from kgrec.features.feast import Ids, write_feast
from kgrec.serving.package import ITEMS, USERS


def export_to_feast(run: Run, folder: Path) -> dict[str, Any]:
    """Write the run's features into a folder that `feast apply` takes, and return what was written.

    Ingest and split are reused where they are there. InputError for a graph without a log, and a log without time.
    """
    material, context = labelled_material(run)
    if not material.log.facts["has_time"]:
        raise InputError(
            Problem("interactions.columns.time", "the log has no time, and Feast's sources need one", "name its column")
        )
    users, items = (Vocabulary.load(material.log.file(name)).entries for name in (USERS, ITEMS))
    tables = material.tables(run.views, context)
    return write_feast(folder, run.config.name, material.labelled().collect(), tables, Ids(users, items))


def update_days(run: Run) -> dict[str, Any]:
    """Bring the features by day of a config, and their online table, up to date with its log; return what that took.

    They are kept in `feature_days/NAME` of the workspace. Only days that changed are computed; the pointers move when
    all is written. InputError for a graph without a log, and a log without time.
    """
    material, context = labelled_material(run)
    days = FeatureDays(run.workspace.feature_days / run.config.name)
    done = days.backfill(run.views, material.labelled().drop(PART).collect(), *material.side(), context=context)
    online = days.write_online(done)
    return {
        "folder": str(days.root), "snapshot": done.snapshot, "computed": [str(day) for day in done.computed],
        "reused": len(done.reused), "online": None if online is None else str(online), "undated": done.undated,
        "left_out": dict(done.left_out),
    }  # fmt: skip


def labelled_material(run: Run) -> tuple[Material, list[str]]:
    """Return what the features of a config are made of, ingested and split as needed, and its context columns."""
    ingested: Artifact = ingest(run)
    log = split(run, ingested)
    material = material_of(run, ingested, log)
    if run.config.interactions is None or not log.has("labelled.parquet"):
        raise InputError(Problem(run.loaded.source, "it has no [interactions]: there are no features", "add them"))
    context = list(run.config.interactions.context)
    check_declarations(run.views, context)
    there = pl.read_parquet_schema(log.file("labelled.parquet"))
    return material, [name for name in context if name in there]
