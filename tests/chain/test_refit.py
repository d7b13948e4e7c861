"""What validation chose, learned again from train and validation: against a run that had both as train all along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

import kgrec
from kgrec import columns as c
from kgrec.artifacts import Artifact, load_artifact
from kgrec.config import load_config
from kgrec.errors import InputError
from kgrec.stages import STAGES, RunResult
from tests import worlds

QUICK = ('tasks=["click","kg"]', "training.epochs=4", "training.evaluate_every=2", "evaluation.k=[5]")
COLUMN = ('split.kind="column"', 'split.column="part"')


def newest(result: RunResult, kind: str) -> Artifact:
    (folder,) = (result.workspace / "artifacts" / kind).iterdir()
    return load_artifact(folder, kind)


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """A world whose log names its parts, and a run on it that learns again."""
    folder = tmp_path_factory.mktemp("refit")
    config = worlds.events_world(folder)
    for name in ("log-1", "log-2"):
        rows = pl.read_parquet(folder / f"{name}.parquet")
        at = pl.col("at").rank("ordinal").over("who") / pl.len().over("who")
        part = pl.when(at > 0.9).then(pl.lit("test")).when(at > 0.7).then(pl.lit("valid")).otherwise(pl.lit("train"))
        late = pl.col("who").hash(3) % 10 == 0  # these come with validation
        part = pl.when(late & (part == "train")).then(pl.lit("valid")).otherwise(part)
        rows.with_columns(part.alias("part")).write_parquet(folder / f"{name}.parquet")
    return config, kgrec.run(config, folder / "workspace", overrides=[*QUICK, *COLUMN, "training.refit=true"])


def test_a_refit_equals_a_training_that_had_validation_in_train_all_along(
    parted: tuple[Path, RunResult], tmp_path: Path
) -> None:
    config, result = parted
    for name in ("log-1", "log-2"):
        rows = pl.read_parquet(config.parent / f"{name}.parquet")
        half = (pl.col("part") == "test") & (pl.int_range(pl.len()) % 2 == 0)  # some validation there must be
        part = pl.when(half).then(pl.lit("valid")).otherwise(pl.col("part").replace("valid", "train"))
        rows.with_columns(part.alias("part")).write_parquet(tmp_path / f"{name}.parquet")
    for table in config.parent.glob("*.*"):
        if table.suffix in (".csv", ".toml"):
            (tmp_path / table.name).write_bytes(table.read_bytes())
    best = newest(result, "train").facts["best_epoch"]
    epochs = (f"training.epochs={best}", f"training.evaluate_every={best}")
    plain = kgrec.run(tmp_path / config.name, tmp_path / "workspace", overrides=[*QUICK, *COLUMN, *epochs])
    again, alone = (load_file(newest(run, kind).file("weights.safetensors"))
                    for run, kind in ((result, "refit"), (plain, "train")))  # fmt: skip
    assert again.keys() == alone.keys()
    assert all(torch.equal(again[name], alone[name]) for name in again)
    before = load_file(newest(result, "train").file("weights.safetensors"))
    assert not all(torch.equal(again[name], before[name]) for name in again)


def test_the_version_serves_what_learned_again_with_the_weights_that_validation_chose(
    parted: tuple[Path, RunResult],
) -> None:
    _, result = parted
    again, version, index = (newest(result, kind) for kind in ("refit", "version", "index"))
    assert version.files["vectors.safetensors"] == again.files["vectors.safetensors"]
    assert index.facts["bound_to"]["model"] == again.files["vectors.safetensors"]
    vectors, before = (load_file(newest(result, kind).file("vectors.safetensors")) for kind in ("refit", "train"))
    assert torch.equal(vectors["block_weights"], before["block_weights"])
    trained_U = load_file(version.file("trained_users.safetensors"))["trained_U"]
    events = pl.read_parquet(newest(result, "split").file("events.parquet"))
    known = events.filter(pl.col(c.PART) != c.TEST)[c.USER_ROW].n_unique()
    assert int(trained_U.sum()) == known > events.filter(pl.col(c.PART) == c.TRAIN)[c.USER_ROW].n_unique()


def test_no_row_of_test_is_learned_from_and_validation_figures_stay_those_of_train(
    parted: tuple[Path, RunResult],
) -> None:
    config, result = parted
    joined = pl.read_parquet(newest(result, "joined").file("events.parquet"))
    split = pl.read_parquet(newest(result, "split").file("events.parquet"))
    assert (joined[c.PART] == c.TEST).equals(split[c.PART] == c.TEST)
    assert set(joined[c.PART].unique()) == {c.TRAIN, c.TEST}
    without = kgrec.run(config, result.workspace, overrides=[*QUICK, *COLUMN])
    assert without.as_dict()["stages"]["train"]["cached"]  # the choice does not depend on the refit
    assert without.metrics["validation"] == result.metrics["validation"]
    assert without.metrics["test"] != result.metrics["test"]
    assert without.baselines["item_knn"] != result.baselines["item_knn"]  # they learn again, too
    assert "refit" not in without.as_dict()["stages"]


def test_a_second_run_reuses_the_refit(parted: tuple[Path, RunResult]) -> None:
    config, result = parted
    second: dict[str, Any] = kgrec.run(
        config, result.workspace, overrides=[*QUICK, *COLUMN, "training.refit=true"]
    ).as_dict()
    assert tuple(second["stages"]) == STAGES
    assert all(stage["cached"] for stage in second["stages"].values())


@pytest.mark.parametrize("misfit", ['evaluation.history="train"'])
def test_a_refit_that_does_not_fit_the_rest_of_the_config_is_refused(tmp_path: Path, misfit: str) -> None:
    config = worlds.events_world(tmp_path)
    load_config(config, ["training.refit=true"])
    with pytest.raises(InputError, match=r"training\.refit"):
        load_config(config, ["training.refit=true", misfit])
