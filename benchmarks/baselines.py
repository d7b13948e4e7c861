"""Fit baselines under the protocol of published or measured rows, and print ours beside each row; JSON, a line a row.

    python benchmarks/baselines.py --data DIR [--only lastfm,amazon]

DIR holds lastfm_lightkg/ and amazon_book_kgat/, each with interactions.parquet (user, item, split). Fitted on train, a
user's history is train alone, everything before test is masked, the whole catalogue is ranked, and users without a
test item are not in the mean. A row's setting is its own: nothing is chosen here, so the test part is only looked at.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from kgrec.evaluation.baseline_roles import BaselinesConfig, Known, LeftOutError
from kgrec.evaluation.baselines import fit, judge
from kgrec.evaluation.pairs import Pairs

FOLDERS = {"lastfm": "lastfm_lightkg", "amazon": "amazon_book_kgat"}
CONFIG = BaselinesConfig(neighbours=(1_000_000,))


@dataclass(frozen=True)
class Row:
    """A figure that somebody else measured: whose, of which baseline with which setting, and what came out."""

    data: str
    source: str
    baseline: str
    setting: dict[str, float]
    expected: dict[str, float]


ROWS = (
    Row("lastfm", "popularity", "popularity", {"half_life_days": 0.0}, {"recall@10": 0.1189, "mrr@10": 0.0364}),
    Row("lastfm", "ItemKNN cosine", "item_knn", {"neighbours": 1_000_000, "shrinkage": 5.0},
        {"recall@10": 0.2716, "mrr@10": 0.1256}),
    Row("lastfm", "implicit ItemKNN", "item_knn", {"neighbours": 400, "shrinkage": 0.0},
        {"recall@10": 0.2322, "mrr@10": 0.1027}),
    Row("lastfm", "EASE, lambda 100", "ease", {"lambda": 100.0}, {"recall@10": 0.2785, "mrr@10": 0.1202}),
    Row("lastfm", "EASE, tuned (lambda 30)", "ease", {"lambda": 30.0}, {"recall@10": 0.2748, "mrr@10": 0.1231}),
    Row("lastfm", "linear filter with three exponents", "linear_filter",
        {"user": 0.5, "history_item": 0.5, "item": 0.2}, {"recall@10": 0.2726}),
    Row("amazon", "parameter-free linear filter (row-normalised co-occurrence)", "linear_filter",
        {"user": 0.0, "history_item": 1.0, "item": 0.0}, {"recall@20": 0.1567, "ndcg@20": 0.0925}),
    Row("amazon", "the same, users' degrees divided out too", "linear_filter",
        {"user": 1.0, "history_item": 1.0, "item": 0.0}, {"recall@20": 0.1567, "ndcg@20": 0.0925}),
    Row("amazon", "linear filter with three exponents", "linear_filter",
        {"user": 0.5, "history_item": 0.5, "item": 0.2}, {"recall@20": 0.1723, "ndcg@20": 0.0997}),
)  # fmt: skip


def parts_of(data: Path, name: str) -> dict[str, Pairs]:
    """Return the pairs of train, of all that came before test, and of test."""
    log = pl.read_parquet(data / FOLDERS[name] / "interactions.parquet").select("user", "item", "split")
    users, items = (torch.tensor(log[key].rank("dense").to_numpy()).long() - 1 for key in ("user", "item"))
    shape = (int(users.max()) + 1, int(items.max()) + 1)
    masks = {"train": log["split"] == "train", "before": log["split"] != "test", "test": log["split"] == "test"}
    return {
        part: Pairs.of(users[torch.tensor(mask.to_numpy())], items[torch.tensor(mask.to_numpy())], *shape)
        for part, mask in masks.items()
    }


def measured(row: Row, parts: dict[str, Pairs]) -> dict[str, Any]:
    """Fit and judge one row, and hold it against what was expected."""
    start = time.perf_counter()
    told = {"data": row.data, "row": row.source, "baseline": row.baseline, "setting": row.setting}
    try:
        scorer = fit(row.baseline, Known(parts["train"]), row.setting, CONFIG)
    except LeftOutError as reason:
        return told | {"left_out": str(reason)}
    users = parts["test"].counts().nonzero()[:, 0]
    found = judge(scorer, users, parts["train"], parts["test"], parts["before"], (10, 20))
    return told | {
        "expected": row.expected, "ours": {name: round(found[name], 4) for name in row.expected},
        "difference": {name: round(found[name] - value, 4) for name, value in row.expected.items()},
        "users": int(found["num_users"]), "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--only", default="lastfm,amazon")
    parser.add_argument("--baseline", help="rows of one baseline alone")
    arguments = parser.parse_args()
    for name in arguments.only.split(","):
        parts = parts_of(arguments.data, name)
        for row in ROWS:
            if row.data == name and arguments.baseline in (None, row.baseline):
                print(json.dumps(measured(row, parts)), flush=True)


if __name__ == "__main__":
    main()
