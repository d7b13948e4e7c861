"""The refit: what validation chose, learned again from train and validation together, before test is asked.

A version that is served should know the days before the test, and a figure on test should be that version's own.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from kgrec import columns as c
from kgrec.artifacts import Artifact
from kgrec.chain.blocks import served_again
from kgrec.chain.context import Run
from kgrec.chain.encoded import LABELLED
from kgrec.chain.increments import categories, is_increment
from kgrec.chain.learn import chosen_tasks, keep, load_network, reporter
from kgrec.chain.lesson import Lesson, prepared
from kgrec.chain.prepare import EVENTS
from kgrec.chain.starting import start_of
from kgrec.chain.together import train_together
from kgrec.chain.towers_alone import ALONE, take_towers, train_alone
from kgrec.chain.tuning import Teacher, read_tuned
from kgrec.model.network import Network
from kgrec.training.warm_start import carry_over

_PARTED: Final = (EVENTS, LABELLED)


@dataclass(frozen=True)
class Refit:
    """The split log with the rows of validation counted as train, and what was learned from it."""

    log: Artifact
    trained: Artifact


def refit(
    run: Run, ingested: Artifact, log: Artifact, features: Artifact | None, graph: Artifact, tuned: Artifact | None,
    trained: Artifact,
) -> Refit | None:  # fmt: skip
    """Learn again for as many epochs as validation chose; None where the config or the data asks for none.

    Weights of the parts, towers beside or alone, calibration and the baselines' settings stay as chosen. The refit of
    an increment goes on from the refit of its base.
    """
    if not run.config.training.refit or not log.has(EVENTS) or not _has_validation(log):
        return None
    joined = _joined(run, log)
    tasks = chosen_tasks(run, ingested)
    start = start_of(run, ingested, log, graph) if is_increment(trained) else None
    base = None if start is None else start.base
    config = run.config if base is None else base.suited(run.config)
    inputs = {"split": joined.digest, "held out": log.digest, "graph": graph.digest, "train": trained.digest}
    inputs |= {"features": features.digest} if features is not None else {}
    inputs |= {"baselines": tuned.digest} if tuned is not None else {}
    if base is not None:
        inputs |= {"base": (base.again or base.trained).digest}
    settings = dict(trained.config)
    owner = run.workspace.store.key("refit", inputs, settings)
    checkpoint = run.workspace.checkpoints / f"{owner[:20]}.safetensors"
    beside = checkpoint.with_suffix(".towers.safetensors")

    def make(out: Path) -> dict[str, Any]:
        before, _ = load_network(trained)
        epochs = max(1, int(trained.facts["best_epoch"]))
        taught = prepared(Lesson(config, tasks, joined, features, graph, ahead=log, judged=False, until=epochs))
        network, data = taught.network, taught.data
        if base is not None:
            carry_over(network, base.earlier(again=True), data.edges, categories(features))
        run.workspace.checkpoints.mkdir(exist_ok=True)
        train_together(run.launch, taught, checkpoint, owner, reporter(run, "refit"))
        towers = trained.facts.get("towers", {})
        if towers.get("kept") == ALONE:
            plain, _ = train_alone(
                network, data, config.training, config.losses, config.seed, beside, f"{owner} towers",
                reporter(run, "refit"), evaluate=None, until=max(1, int(towers[f"{ALONE}_best_epoch"])),
            )  # fmt: skip
            take_towers(network, plain)
        _take_calibration(network, before)
        teacher = Teacher(config, joined, graph, read_tuned(tuned)) if tuned is not None else None
        vectors = served_again(network, data, teacher, config, trained.facts["blocks"])
        keep(network, vectors, out)
        return {"epochs": epochs, "blocks": trained.facts["blocks"]}

    artifact = run.stage("refit", inputs, settings, make)
    for left in (checkpoint, beside):
        left.unlink(missing_ok=True)
    return Refit(joined, artifact)


def _has_validation(log: Artifact) -> bool:
    parts = pl.scan_parquet(log.file(EVENTS)).filter(pl.col(c.PART) == c.VALIDATION).head(1).collect()
    return parts.height > 0


def _joined(run: Run, log: Artifact) -> Artifact:
    """Return the split log with the rows of validation counted as train."""

    def make(out: Path) -> dict[str, Any]:
        for name in log.files:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            if name not in _PARTED:
                shutil.copyfile(log.file(name), out / name)
        for name in _PARTED:
            rows = pl.scan_parquet(log.file(name))
            part = pl.col(c.PART).cast(pl.String).replace(c.VALIDATION, c.TRAIN).cast(c.PART_TYPE)
            rows.with_columns(part.alias(c.PART)).sink_parquet(out / name)
        return dict(log.facts)

    return run.workspace.store.build("joined", {"split": log.digest}, {}, make)[0]


def _take_calibration(network: Network, before: Network) -> None:
    if network.towers is not None and before.towers is not None:
        network.towers.slope_T.copy_(before.towers.slope_T)
        network.towers.intercept_T.copy_(before.towers.intercept_T)
