"""A log with every leak planted: each alarm stands on the terminal and in every form of the report."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests import worlds
from tests.calling import call, leave_prefect_out

ALARMS = (
    "overlap", "future", "duplicated users", "statistics over test", "label among features", "telling feature",
    "target-derived triples", "inverse triples across the split",
)  # fmt: skip
CONFIG = """
name = "leaky"
[interactions]
path = "exposures.csv"
layout = "impressions"
context = ["tab", "is_click"]
random = "dealt"
[interactions.labels]
click = "is_click"
conversion = "long_view"
[users]
path = "users.csv"
features = ["activity"]
[knowledge]
triples = ["triples.csv", "also.csv", "turned.csv"]
links = "links.csv"
[knowledge.leaks]
action = "report"
[split]
kind = "column"
column = "part"
"""
USERS, ITEMS = 60, 40


def exposures() -> list[tuple[Any, ...]]:
    """User, item, time, click, long view, tab, whether the row was dealt at random, part; a click follows taste."""
    draw, rows = random.Random(51), []
    for user in range(USERS):
        for place in range(30):
            item, dealt = draw.randrange(ITEMS), draw.random() < 0.4
            if not dealt and draw.random() < 0.6:
                item = item // 4 * 4 + worlds.taste_of(user)
            own = worlds.genre_of(item) == worlds.taste_of(user)
            click = int(draw.random() < (0.8 if own else 0.1))
            part = "train" if place < 20 else "validation" if place < 25 else "test"
            time = worlds.instant((place * USERS + user) / 2_000)
            rows.append((worlds.user_id(user), worlds.item_id(item), time, click, click * draw.randrange(2),
                         draw.choice("ab"), int(dealt), part))  # fmt: skip
    return rows


def leak(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return a clicked test row in train as well, a train row after its user's test, and a user under a second id."""
    overlap = next(row for row in rows if row[-1] == "test" and row[3])
    twin = [("u99", *row[1:]) for row in rows if row[0] == "u07"]
    late = ("u05", "i03", worlds.instant(0.99), 1, 0, "a", 0, "train")
    return [(*overlap[:-1], "train"), late, *twin]


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[Any, ...]]]:
    folder = tmp_path_factory.mktemp("leaky")
    rows = exposures()
    rows += leak(rows)
    header = ("user", "item", "time", "is_click", "long_view", "tab", "dealt", "part")
    worlds.write_table(folder / "exposures.csv", header, rows)
    worlds.write_graph(folder, ITEMS, 52)
    clicks = pl.DataFrame(rows, schema=header, orient="row").group_by("user").agg(pl.col("is_click").sum()).sort("user")
    worlds.write_table(folder / "users.csv", ("user", "activity"), clicks.iter_rows())
    also = ((worlds.entity_id(item), "also_viewed", worlds.entity_id((item + 4) % ITEMS)) for item in range(ITEMS))
    worlds.write_table(folder / "also.csv", ("head", "relation", "tail"), also)
    parts = [(worlds.entity_id(item), "part_of", f"set{item % 5}", "train") for item in range(ITEMS)]
    turned = [(tail, "has_part", head, "test" if at % 2 else "train") for at, (head, _, tail, _) in enumerate(parts)]
    worlds.write_table(folder / "turned.csv", ("head", "relation", "tail", "part"), parts + turned)
    light = worlds.LIGHT.replace("epochs = 6", "epochs = 2").replace("[10, 20]", "[5]")
    light = light.replace(
        "[baselines]", "[baselines]\nfilter_exponents = [0.5]\nials_alpha = [1.0]\nhub_exponents = [0.5]"
    )
    return worlds.write_config(folder, CONFIG + light), rows


@pytest.fixture(scope="module")
def told(leaky: tuple[Path, list[tuple[Any, ...]]]) -> tuple[str, Path]:
    """What the terminal showed of the run, and the folder of its report."""
    workspace = leaky[0].with_name("workspace")
    with pytest.MonkeyPatch.context() as patch:
        leave_prefect_out(patch)
        result = call("run", leaky[0], "--workspace", workspace)
    assert result.exit_code in (0, 3), result.output
    return " ".join(result.stdout.split()), next((workspace / "reports").rglob("report.json")).parent


@pytest.mark.parametrize("alarm", ALARMS)
def test_an_alarm_is_told_in_every_form(told: tuple[str, Path], alarm: str) -> None:
    terminal, folder = told
    assert f"ALARM {alarm}: " in terminal
    assert f"\n- {alarm}: " in (folder / "report.md").read_text()
    assert f"<li>{alarm}: " in (folder / "report.html").read_text()
    found = [
        one for one in json.loads((folder / "report.json").read_text())["details"]["alarms"] if one["name"] == alarm
    ]
    assert len(found) == 1
    assert found[0]["count"] >= 1
    assert found[0]["example"]
    assert found[0]["remedy"]


def test_no_other_alarm_goes_off(told: tuple[str, Path]) -> None:
    details = json.loads((told[1] / "report.json").read_text())["details"]
    assert sorted(one["name"] for one in details["alarms"]) == sorted(ALARMS)


def test_the_rows_that_were_dealt_at_random_are_judged_apart(
    leaky: tuple[Path, list[tuple[Any, ...]]], told: tuple[str, Path]
) -> None:
    saved = json.loads((told[1] / "report.json").read_text())
    found = saved["details"]["random_exposure"]
    dealt = [row for row in leaky[1] if row[-1] == "test" and row[6]]
    clicked = [row for row in dealt if row[3]]
    assert found["click"]["num_rows"] == found["click_and_conversion"]["num_rows"] == len(dealt)
    assert found["click"]["positive_rate"] == pytest.approx(len(clicked) / len(dealt))
    assert found["conversion"]["num_rows"] == len(clicked)
    assert found["click"]["positive_rate"] < saved["metrics"]["test"]["click"]["positive_rate"] - 0.05
    assert found["click"]["auc"] > 0.95, "the label is among the features here"
    assert "shown at random" in (told[1] / "report.html").read_text()
