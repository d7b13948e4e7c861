"""From what the user brought to what training reads: ingest, split, features."""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.context import Run
from kgrec.chain.encoded import ITEM_FEATURES, USER_FEATURES, Material, write_encoded_features
from kgrec.chain.split_log import LogSplitter
from kgrec.config import TaskName
from kgrec.data.ingest import ingest as ingest_tables
from kgrec.data.ingest import input_digests
from kgrec.data.split import SplitKind
from kgrec.data.tombstones import LEFT_OUT, Tombstones, leave_out
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import InputError, Problem
from kgrec.evaluation.ranking import Target
from kgrec.features.declarations import check_declarations
from kgrec.features.of_runs import table_of
from kgrec.features.shares import BYTES_OF_A_ROW, MOST_AT_ONCE
from kgrec.serving.package import ITEMS, USERS
from kgrec.serving.versions import read_registry

logger = logging.getLogger(__name__)

EVENTS: Final = "events.parquet"
CATALOGUE: Final = "catalogue.parquet"
OF_THE_GRAPH: Final = ("prefixes", "merging", "noise", "leaks", "validation", "test")
"""Keys of [knowledge] that the stage `graph` reads; the others are ingest's."""


def ingest(run: Run) -> Artifact:
    """Read, check and canonise everything; raises InputError with all problems of all inputs."""
    config = run.config
    parts = (config.interactions, config.users, config.items, config.knowledge)
    run.workspace.scratch.mkdir(exist_ok=True)
    inputs = input_digests(*parts, base=run.loaded.base, scratch=run.workspace.scratch)
    split_column = config.split.column if config.split.kind is SplitKind.COLUMN else None
    settings = {
        name: getattr(config, name).model_dump(mode="json") if getattr(config, name) is not None else None
        for name in ("interactions", "users", "items")
    }
    if config.knowledge is not None:
        settings["knowledge"] = config.knowledge.model_dump(mode="json", exclude=set(OF_THE_GRAPH))

    stones = Tombstones.load(run.workspace.tombstones)
    if stones.digest is not None:
        settings["forgotten"] = stones.digest

    def make(out: Path) -> dict[str, Any]:
        run.workspace.quarantine.mkdir(exist_ok=True)
        facts = ingest_tables(
            *parts,
            base=run.loaded.base,
            out=out,
            quarantine=run.workspace.quarantine / f"{config.name}.parquet",
            scratch=run.workspace.scratch,
            now=datetime.now(UTC),
            split_column=split_column,
            progress=run.tell("ingest"),
            resources=config.resources,
            parse_all=run.parse_all,
        )
        left_out = leave_out(out, stones)
        if left_out.get(LEFT_OUT):
            logger.warning("%d rows of people who were forgotten were left out", left_out[LEFT_OUT])
        return facts | left_out

    artifact = run.stage("ingest", inputs, {**settings, "split_column": split_column}, make)
    if stones.digest is not None:
        shutil.rmtree(run.workspace.scratch, ignore_errors=True)  # what was read on the way names everybody
    _check_tasks(run, artifact)
    return artifact


def split(run: Run, ingested: Artifact) -> Artifact:
    """Give every id its row and every event its part. Rows that a promoted version of this name knows stand."""
    config = run.config

    def make(out: Path) -> dict[str, Any]:
        known_users, known_items = (known_vocabulary(run, name) for name in (USERS, ITEMS))
        items_table = pl.read_parquet(ingested.file("items.parquet"))
        items = known_items.grow(items_table[c.ITEM])
        items.save(out / ITEMS)
        catalogue = _with_rows(items_table, c.ITEM, c.ITEM_ROW, items)
        catalogue.select(c.ITEM_ROW, c.ITEM, c.TITLE).write_parquet(out / CATALOGUE)
        catalogue.drop(c.ITEM, c.TITLE).write_parquet(out / ITEM_FEATURES)
        users_table = pl.read_parquet(ingested.file("users.parquet"))
        users = known_users.grow(users_table[c.USER])
        users.save(out / USERS)
        _with_rows(users_table, c.USER, c.USER_ROW, users).drop(c.USER).write_parquet(out / USER_FEATURES)
        facts: dict[str, Any] = {"users": len(users), "items": len(items), "catalogue": items_table.height}
        if ingested.has("events.parquet"):
            facts |= LogSplitter(ingested, config, users, items).write(out)
        return facts

    settings = {"split": config.split.model_dump(mode="json"), "explicit": sorted(config.split.model_fields_set)}
    return run.stage("split", {"ingest": ingested.digest}, {**settings, "seed": config.seed, "name": config.name}, make)


def features(run: Run, ingested: Artifact, log: Artifact) -> Artifact:
    """Compute each labelled row's features as known before it, and the latest values for serving."""
    context = list(run.config.interactions.context) if run.config.interactions is not None else []
    declared = [repr(view) for view in run.views]
    material = material_of(run, ingested, log)
    settings: dict[str, Any] = {"views": declared, "context": context, "links": material.links}
    settings["config"] = run.config.features.model_dump(mode="json")
    check_declarations(run.views, context)
    table = table_of(run.workspace, run.config.name, run.config.features.backend)
    at_once = min(run.config.resources.rows(BYTES_OF_A_ROW), MOST_AT_ONCE)
    return run.stage(
        "features",
        {"split": log.digest, "ingest": ingested.digest},
        settings,
        lambda out: write_encoded_features(out, material, run.views, context, run.config.features, table, at_once),
    )


def material_of(run: Run, ingested: Artifact, log: Artifact) -> Material:
    """Return what the features of a run are made of."""
    knowledge = run.config.knowledge
    return Material(log, ingested, links=knowledge is not None and bool(knowledge.links))


def known_vocabulary(run: Run, file: str) -> Vocabulary:
    """Return the vocabulary of the promoted version, when it is one of this name; else an empty one."""
    registry = read_registry(run.workspace)
    record = registry.find(registry.promoted) if registry.promoted else None
    if record is None or record.name != run.config.name:
        return Vocabulary.of(pl.Series([], dtype=pl.String))
    return Vocabulary.load(run.workspace.store.path("version", record.key) / file)


def _with_rows(table: pl.DataFrame, column: str, row: str, vocabulary: Vocabulary) -> pl.DataFrame:
    return table.with_columns(vocabulary.rows(table[column]).alias(row)).select(row, pl.exclude(row)).sort(row)


def _check_tasks(run: Run, ingested: Artifact) -> None:
    """Refuse a config that asks for a task, or a target, whose labels the data does not have."""
    config, where = run.config, run.loaded.source
    has = available_tasks(ingested)
    wanted = config.tasks or tuple(TaskName(name) for name in has)
    remedies = {
        TaskName.CLICK: "name the click events in [interactions.roles] click, or the column in [interactions.labels]",
        TaskName.CONVERSION: "name conversion events in [interactions.roles], or a column in [interactions.labels]",
        TaskName.KG: "name the files of the graph in [knowledge] triples",
    }
    problems = [
        Problem(f"{where}: tasks", f"the task {task.value!r} has no labels in the data", remedies[task],
                example=f"the data allows: {', '.join(has) or 'nothing'}")
        for task in wanted if task not in has
    ]  # fmt: skip
    if config.interactions is not None and config.evaluation.target is Target.CONVERSION and "conversion" not in has:
        problems.append(
            Problem(f"{where}: evaluation.target", "no event counts as a conversion", remedies[TaskName.CONVERSION])
        )
    if problems:
        raise InputError(problems)


def available_tasks(ingested: Artifact) -> list[str]:
    """Return the tasks that the ingested data has labels for, in the order click, conversion, kg."""
    found = []
    if ingested.has("events.parquet"):
        flags = (
            pl.scan_parquet(ingested.file("events.parquet"))
            .select(pl.col(c.CLICK, c.CONVERSION).any())
            .collect(engine="streaming")
        )
        found = [name for name in (c.CLICK, c.CONVERSION) if flags[name].item()]
    triples = pl.scan_parquet(ingested.file("triples.parquet")).select(pl.len()).collect().item()
    return [*found, "kg"] if triples else found


def catalogue_mask(log: Artifact) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return one flag per item row: whether the item is in the catalogue of this log."""
    mask = np.zeros(int(log.facts["items"]), dtype=bool)
    mask[pl.read_parquet(log.file(CATALOGUE))[c.ITEM_ROW].to_numpy()] = True
    return mask
