"""The whole chain where a purchase is what counts and a viewed item may be recommended again, a bought one never."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import kgrec
from kgrec.artifacts import load_artifact
from kgrec.stages import RunResult
from tests import worlds

USERS, ITEMS, VIEWS = 80, 60, 9
CONFIG = """
name = "purchases"
[interactions]
path = "log.csv"
[gate]
metric = "recall@5"
baselines = ["popularity"]
"""
Rows = list[tuple[str, str, str, int]]


def draw_log() -> Rows:
    """Everybody views items of any kind, and later buys most of them; what is popular says nothing."""
    draw, rows = random.Random(61), []
    for user in range(USERS):
        for item in draw.sample(range(ITEMS), VIEWS):
            seen = draw.random() * 0.95
            rows.append((worlds.user_id(user), worlds.item_id(item), "view", worlds.instant(seen)))
            bought = seen + 0.02 + 0.3 * draw.random()
            if bought < 1 and draw.random() < 0.8:
                rows.append((worlds.user_id(user), worlds.item_id(item), "purchase", worlds.instant(bought)))
    return sorted(rows, key=lambda row: row[3])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rows, RunResult]:
    folder = tmp_path_factory.mktemp("purchases")
    rows = draw_log()
    worlds.write_table(folder / "log.csv", ("user", "item", "event", "timestamp"), rows)
    light = worlds.LIGHT.replace("[evaluation]", 'filter_exponents = [0.5]\nials_alpha = [1.0]\n[evaluation]\n'
                                 'target = "conversion"\nexclude_seen = "target"')  # fmt: skip
    config = worlds.write_config(folder, CONFIG + light.replace("[10, 20]", "[5]").replace("epochs = 6", "epochs = 2"))
    return rows, kgrec.run(config, folder / "workspace")


def had(rows: Rows, event: str) -> set[tuple[str, str]]:
    return {(user, item) for user, item, what, _ in rows if what == event}


def facts_of(result: RunResult, stage: str) -> dict[str, Any]:
    folder = next((Path(result.workspace) / "artifacts" / stage).iterdir())
    return dict(load_artifact(folder, verify=False).facts)


def test_the_constant_of_repeats_is_chosen_and_carries_the_result(shop: tuple[Rows, RunResult]) -> None:
    result = shop[1].as_dict()
    weights = facts_of(shop[1], "train")["blocks"]["weights"]
    assert weights["repeat"] > 0
    test, baselines = result["metrics"]["test"]["ranking"], result["baselines"]
    assert test["recall@5"] > 0.6
    assert test["recall@5"] > 3 * baselines["popularity"]["recall@5"]
    assert baselines["seen_then_popular"]["recall@5"] > 3 * baselines["popularity"]["recall@5"]
    assert result["promoted"]


def test_only_purchases_count_and_only_users_who_bought_are_asked(shop: tuple[Rows, RunResult]) -> None:
    rows, result = shop
    times = sorted(time for *_, time in rows)
    late = [row for row in rows if row[3] >= times[round(len(times) * 0.9)]]
    buyers = {user for user, _ in had(late, "purchase")}
    assert abs(result.as_dict()["metrics"]["test"]["ranking"]["num_users"] - len(buyers)) <= 1  # ties at the boundary


def test_a_viewed_item_may_be_served_again_and_a_bought_one_never(shop: tuple[Rows, RunResult]) -> None:
    rows, result = shop
    viewed, bought = had(rows, "view"), had(rows, "purchase")
    waiting = sorted({user for user, item in viewed - bought})
    version = kgrec.load(result.workspace)
    served = set(version.recommend(waiting, k=5).select("user", "item").iter_rows())
    assert not served & bought
    assert len(served & viewed) >= 0.9 * len([pair for pair in viewed - bought if pair[0] in waiting])
    answer = version.recommend([waiting[0]], k=ITEMS)
    assert set(answer["item"]).isdisjoint(item for user, item in bought if user == waiting[0])
