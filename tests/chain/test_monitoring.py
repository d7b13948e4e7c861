"""Monitoring of a planted shop: each planted drift raises its alarm, a shop that goes on as it was raises none."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from feature_store.catalog import VIEWS
from kgrec.chain.context import Run
from kgrec.chain.monitoring import look
from kgrec.config import load_config
from kgrec.errors import InputError
from kgrec.stages import run
from kgrec.workspace import Workspace
from tests.calling import as_json, call
from tests.test_notify import listener

START = datetime(2026, 1, 1, tzinfo=UTC)
SINCE = START + timedelta(days=80)
CONFIG = """
name = "shop"
[interactions]
path = "log.csv"
context = ["tab"]
columns = { time = "time" }
[interactions.roles]
click = ["view"]
conversion = [{ event = "view", at_least = 4.0 }]
[users]
path = "users.csv"
features = ["age"]
[items]
path = "items.csv"
[knowledge]
triples = ["triples.csv"]
[knowledge.leaks]
allowed = ["genre"]
[model]
dimensions = 8
towers = { hidden = [8], dropout = 0.0 }
[training]
epochs = 4
batch_size = 512
learning_rate = 0.05
threads = 1
[baselines]
neighbours = [20]
shrinkage = [0.0]
ease_lambda = [100.0]
[gate]
baselines = []
"""
Row = dict[str, Any]


@dataclass(frozen=True)
class Shop:
    """What lies in the files."""

    log: list[Row]
    users: list[Row]
    triples: list[Row]


def picks(generator: random.Random, start: float, end: float, count: int) -> list[Row]:
    """Return views between two days: 100 users of four tastes, 80 items of four genres, four of five in their taste."""
    rows = []
    for at in sorted(generator.uniform(start, end) for _ in range(count)):
        user = generator.randrange(100)
        genre = user % 4 if generator.random() < 0.8 else generator.randrange(4)
        item = 4 * generator.randrange(20) + genre
        when = (START + timedelta(days=at)).isoformat()
        rows.append({"user": f"u{user}", "item": f"i{item}", "event": "view", "time": when,
                     "value": generator.choice([1, 5]), "tab": generator.choice(["home", "search"])})  # fmt: skip
    return rows


def shop() -> Shop:
    generator = random.Random(5)
    users = [{"user": f"u{user}", "age": 20 + user % 40} for user in range(100)]
    triples = [{"head": f"i{item}", "relation": "genre", "tail": f"g{item % 4}"} for item in range(80)]
    return Shop(picks(generator, 0, 80, 2400), users, triples)


def write(folder: Path, made: Shop) -> None:
    (folder / "shop.toml").write_text(CONFIG)
    items = [{"item": f"i{item}"} for item in range(80)]
    for name, rows in (("log", made.log), ("users", made.users), ("items", items), ("triples", made.triples)):
        with (folder / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the shop of the first 80 days and a workspace that promoted version 1 of it. For reading only."""
    folder = tmp_path_factory.mktemp("shop")
    write(folder, shop())
    result = run(folder / "shop.toml", folder / "workspace", views=VIEWS)
    assert result.released.promoted
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path) -> Path:
    """A copy of the folder to write to."""
    return Path(shutil.copytree(trained, tmp_path / "shop"))


def fresh(seed: int, **change: Callable[[Row], Any]) -> list[Row]:
    """Return 600 views of the 20 days after, with a column changed by a function of the row."""
    rows = picks(random.Random(seed), 80.001, 100, 600)
    return [row | {name: new(row) for name, new in change.items()} for row in rows]


def seen(folder: Path, made: Shop, *overrides: str, since: datetime = SINCE) -> dict[str, Any]:
    write(folder, made)
    loaded = load_config(folder / "shop.toml", overrides)
    return look(Run(loaded, Workspace(folder / "workspace"), VIEWS), since, None)


def with_fresh(rows: list[Row]) -> Shop:
    before = shop()
    return replace(before, log=[*before.log, *rows])


def test_a_shop_that_goes_on_as_it_was_raises_nothing(here: Path) -> None:
    for seed in (1, 2, 3):
        answer = seen(here, with_fresh(fresh(seed)))
        assert answer["alerts"] == []
        assert answer["window"]["events"] == 600
    names = {signal["name"] for signal in answer["signals"]}
    assert names >= {"user age: psi", "user age: ks", "context tab: psi", "unknown users", "unknown items",
                     "conversion rate", "score conversion: psi", "calibration conversion", "score first item: psi",
                     "ranking ndcg@10", "graph triples"}  # fmt: skip


def another_taste(row: Row) -> str:
    """An item of a genre that the user did not like before."""
    user = int(row["user"][1:])
    return f"i{4 * (user % 20) + (user + 2) % 4}"


OLDER = [{"user": f"u{user}", "age": 60 + user % 9} for user in range(100)]
OTHER_GRAPH = [*shop().triples[:60], {"head": "i1", "relation": "maker", "tail": "m"}]
DRIFTS: dict[str, tuple[Shop, set[str]]] = {
    "tab": (with_fresh(fresh(1, tab=lambda row: "app")), {"context tab: psi"}),
    "labels": (with_fresh(fresh(1, value=lambda row: 1)), {"conversion rate", "calibration conversion"}),
    "strangers": (with_fresh(fresh(1, user=lambda row: f"new{row['user']}")), {"unknown users"}),
    "age": (replace(with_fresh(fresh(1)), users=OLDER), {"user age: psi", "user age: ks"}),
    "taste": (with_fresh(fresh(1, item=another_taste)), {"ranking ndcg@10"}),
    "graph": (replace(with_fresh(fresh(1)), triples=OTHER_GRAPH), {"graph triples"}),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_a_planted_drift_is_found(here: Path, name: str) -> None:
    made, expected = DRIFTS[name]
    answer = seen(here, made)
    assert expected <= set(answer["alerts"])
    assert answer["raised"] == sorted(answer["alerts"])
    if name == "graph":
        assert answer["graph"] == {"relations_new": ["maker"], "relations_gone": []}


def test_looks_are_kept_and_the_same_window_is_looked_at_once(here: Path) -> None:
    made = with_fresh(fresh(1, tab=lambda row: "app"))
    first = seen(here, made)
    again = seen(here, made)
    assert again == first
    assert again["raised"] == ["context tab: psi"]
    later = seen(here, made, since=SINCE + timedelta(days=5))
    assert later["raised"] == []  # it stood already
    assert "context tab: psi" in later["alerts"]
    over = seen(here, with_fresh(fresh(1)), since=SINCE + timedelta(days=6))
    assert "context tab: psi" in over["cleared"]
    folder = here / "workspace" / "reports" / "monitor" / "shop"
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [len(line["alerts"]) > 0 for line in lines] == [True, True, False]
    page = (folder / "report.html").read_text()
    assert "Nothing drifted" in page
    assert page.count("<polyline") == len(over["signals"])
    assert not [row["user"] for row in made.users if f'"{row["user"]}"' in (folder / "history.jsonl").read_text()]


def test_what_cannot_be_compared_is_refused(here: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no event from"):
        seen(here, shop())
    with pytest.raises(InputError, match="no version is promoted"):
        look(Run(load_config(here / "shop.toml"), Workspace(tmp_path / "empty")), SINCE, None)
    with pytest.raises(InputError, match="is of 'shop', the config of 'other'"):
        seen(here, shop(), "name=other")
    for folder in (here / "workspace" / "artifacts" / "evaluate").iterdir():
        shutil.rmtree(folder)
    with pytest.raises(InputError, match="no longer there"):
        seen(here, shop())


@pytest.mark.usefixtures("without_prefect")
def test_the_command_tells_of_drift_and_retrains(here: Path) -> None:
    write(here, with_fresh(fresh(1, tab=lambda row: "app")))
    arguments = ["monitor", here / "shop.toml", "--since", "2026-03-22", "--workspace", here / "workspace"]
    with listener() as (url, told):
        result = call(*arguments, "--until", "2026-04-02T02:00:00+02:00", "--set", f"notify.url={url}", "--json")
    assert result.exit_code == 0, result.stderr
    answer = as_json(result)
    assert answer["window"]["until"] == "2026-04-02T00:00:00+00:00"
    assert "context tab: psi" in answer["alerts"]
    assert [(body["event"], body["raised"]) for body in told] == [("drift", answer["raised"])]
    assert "retrain" not in answer
    again = as_json(call(*arguments, "--retrain", "--set", "gate.compare_with_promoted=false", "--json"))
    assert again["retrain"]["version"] == "2"
    assert call(*arguments[:2], "--since", "yesterday").exit_code == 2
    quiet = as_json(call(*arguments, "--retrain", "--set", "monitor.psi=50", "--set", "monitor.ks=0.99", "--json"))
    assert "context tab: psi" not in quiet["alerts"]


def test_the_table_for_people_names_what_stands(here: Path) -> None:
    write(here, with_fresh(fresh(1, tab=lambda row: "app")))
    result = call("monitor", here / "shop.toml", "--since", "2026-03-22", "--workspace", here / "workspace")
    assert result.exit_code == 0, result.stderr
    assert "alerts: context tab: psi" in result.stdout
    assert "report.html" in result.stdout
