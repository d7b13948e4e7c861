"""The towers' figures by segment, against the rows that the run kept."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

import kgrec
from feature_store.catalog import VIEWS
from kgrec import columns as c
from kgrec.artifacts import Artifact, load_artifact
from kgrec.stages import RunResult
from tests import worlds


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run on impressions, with click and conversion, whose users have an age."""
    folder = tmp_path_factory.mktemp("segments")
    config = worlds.impressions_world(folder)
    people = ((worlds.user_id(user), "old" if user % 3 else "young") for user in range(80))
    worlds.write_table(folder / "users.csv", ("user", "age"), people)
    quick = ["training.epochs=3", 'evaluation.details.user_columns=["age"]', "evaluation.details.new_user_events=3",
             "training.towers_alone=false", 'users={path="users.csv", features=["age"]}']  # fmt: skip
    return kgrec.run(config, folder / "workspace", overrides=quick, views=VIEWS)


def part(result: RunResult, kind: str) -> Artifact:
    (folder,) = (Path(result.workspace) / "artifacts" / kind).iterdir()
    return load_artifact(folder, kind)


def lines_of(result: RunResult, label: str, segment: str) -> dict[str, dict[str, float]]:
    lines = result.details["tower_segments"]
    return {one["group"]: one["figures"] for one in lines if (one["label"], one["segment"]) == (label, segment)}


@pytest.mark.parametrize("label", ["click", "conversion", "click_and_conversion"])
@pytest.mark.parametrize("segment", ["items before", "items", "age"])
def test_the_groups_of_a_segment_add_up_to_the_whole(shown: RunResult, label: str, segment: str) -> None:
    whole, groups = shown.metrics["test"][label], lines_of(shown, label, segment)
    assert len(groups) > 1
    assert sum(one["num_rows"] for one in groups.values()) == whole["num_rows"]
    for figure in ("positive_rate", "log_loss"):
        mean = sum(one["num_rows"] * one[figure] for one in groups.values()) / whole["num_rows"]
        assert mean == pytest.approx(whole[figure])


@pytest.mark.parametrize("label", ["click", "conversion"])
def test_a_group_is_judged_on_its_own_rows(shown: RunResult, label: str) -> None:
    split = part(shown, "split")
    rows = pl.read_parquet(split.file("labelled.parquet")).filter(pl.col(c.PART) == c.TEST)
    rows = rows.filter(c.CLICK) if label == "conversion" else rows
    judged = pl.read_parquet(part(shown, "evaluate").file("per_row.parquet")).filter(pl.col(c.GROUP) == label)
    events = pl.read_parquet(split.file("events.parquet"))
    before = (
        events.filter(pl.col(c.PART) != c.TEST).group_by(c.USER_ROW).agg(pl.col(c.ITEM_ROW).n_unique().alias("had"))
    )
    had = rows.join(before, on=c.USER_ROW, how="left", maintain_order="left")["had"].fill_null(0)
    table = judged.with_columns(had, rows[c.ITEM_ROW])
    few = table.filter((pl.col("had") > 0) & (pl.col("had") <= 3))
    found = lines_of(shown, label, "items before")
    assert set(found) == {"no history", "1 to 3 items", "4 items or more"} - (
        set() if (had == 0).any() else {"no history"}
    )
    assert found["1 to 3 items"]["num_rows"] == few.height
    many = table.filter(pl.col("had") > 3)
    area = roc_auc_score(many[c.LABEL], many[c.PROBABILITY])
    assert found["4 items or more"]["auc"] == pytest.approx(area, abs=1e-9)
    warm = events.filter(pl.col(c.PART) == c.TRAIN)[c.ITEM_ROW].unique().to_list()
    cold = table.filter(~pl.col(c.ITEM_ROW).is_in(warm)).height
    assert lines_of(shown, label, "items").get("cold (never in train)", {"num_rows": 0})["num_rows"] == cold


def test_the_report_shows_them(shown: RunResult) -> None:
    assert "Labels, group by group" in shown.released.report.read_text()
