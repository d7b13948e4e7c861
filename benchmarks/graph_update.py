"""Update beside rebuild on MovieLens-100k: new films in the graph, without training. Prints one JSON object.

    python benchmarks/graph_update.py [--epochs 4] [--share 0.1]

A tenth of the films with an entity is taken out of the data with their ratings and all triples that name them, and the
chain of configs/ml-100k.toml, one setting a baseline, runs to a promoted version. Then the films and their triples come
back, still without a rating: once by `kgrec graph update`, once by a whole rebuild in a workspace of its own, and by a
second rebuild that differs in its seed alone: two rebuilds do not agree either, and what they share is the most that
can be asked of an update. Compared, each with the rebuild: the ten nearest items of each new film, the lists of ten of
all users, the score of each new film for each user (rank correlation). The ratings that were taken out judge all: the
chance that a user who rated a new film has a higher score of it than one who did not (.5 by luck).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import rankdata, spearmanr

from kgrec.chain.context import Run
from kgrec.chain.updating import update_graph
from kgrec.config import load_config
from kgrec.data.datasets import get_dataset
from kgrec.serving.recommend import Version, load
from kgrec.stages import run
from kgrec.workspace import Workspace

CONFIG = Path(__file__).parents[1] / "configs" / "ml-100k.toml"
SEED = 7  # of the config
QUICKER = [
    "gate.tolerance=0.9",  # it is the update that is judged, not the model of few epochs
    "baselines.neighbours=[100]", "baselines.shrinkage=[10.0]", "baselines.ease_lambda=[300.0]",
    "baselines.ials_regularisation=[10.0]", "baselines.ials_alpha=[1.0]", "baselines.filter_exponents=[0.5]",
    "baselines.half_lives=[0.0]", "baselines.hub_exponents=[0.5]", "baselines.kernel_popularity=[0.1]",
]  # fmt: skip


def write(folder: Path, data: Path, gone: set[str], *, with_films: bool) -> list[str]:
    """Write the tables without the ratings of some films, and without the films themselves unless asked for."""
    folder.mkdir()
    tables = {name: pl.read_csv(data / f"{name}.tsv", separator="\t", infer_schema=False)
              for name in ("interactions", "items", "item_entity", "triples")}  # fmt: skip
    entities = tables["item_entity"].filter(pl.col("item").is_in(gone))["entity"]
    is_film = pl.col("item").is_in(gone)
    names_film = pl.col("head").is_in(entities.implode()) | pl.col("tail").is_in(entities.implode())
    for name, table in tables.items():
        stays = table
        if name == "interactions" or not with_films:
            stays = table.filter(~(names_film if name == "triples" else is_film))
        stays.write_csv(folder / f"{name}.tsv", separator="\t")
    cells = 'relations = { genres = { separator = " " }, release_year = {} }'
    return [
        f'interactions.path="{folder}/interactions.tsv"', f'items.path="{folder}/items.tsv"',
        f'knowledge.triples=["{folder}/triples.tsv"]', f'knowledge.links="{folder}/item_entity.tsv"',
        f'knowledge.tables=[{{ path = "{folder}/items.tsv", id = "item", {cells} }}]', *QUICKER,
    ]  # fmt: skip


def lists(version: Version, users: list[str]) -> dict[str, set[str]]:
    found = version.recommend(users, k=10)
    return {user: set(rows["item"].to_list()) for (user,), rows in found.group_by(["user"])}


def nearest(version: Version, films: list[str]) -> dict[str, set[str]]:
    found = version.similar(films, k=10)
    return {film: set(rows["neighbour"].to_list()) for (film,), rows in found.group_by(["item"])}


def shared(one: dict[str, set[str]], other: dict[str, set[str]]) -> float:
    """The mean share of a list of ten that the other list holds too; a list that is not there shares nothing."""
    return round(float(np.mean([len(one.get(key, set()) & found) / 10 for key, found in other.items()])), 4)


def scores(version: Version, users: list[str], films: list[str]) -> np.ndarray:
    """(U, F): what each user's score of each film is."""
    histories = {user: version.ask(user).history_H for user in users}
    return version.scores_of(pl.Series(users), histories)[:, [version.item_rows[film] for film in films]]


def chance(scores_UF: np.ndarray, rated_UF: np.ndarray) -> float:
    """The mean over films of the chance that one who rated it scores it above one who did not."""
    found = []
    for score_U, rated_U in zip(scores_UF.T, rated_UF.T, strict=True):
        if 0 < rated_U.sum() < len(rated_U):
            ranks_U, ones = rankdata(score_U), rated_U.sum()
            found.append((ranks_U[rated_U].sum() - ones * (ones + 1) / 2) / (ones * (len(rated_U) - ones)))
    return round(float(np.mean(found)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    data = get_dataset("ml-100k", lambda _: None)
    linked = pl.read_csv(data / "item_entity.tsv", separator="\t", infer_schema=False)["item"].to_list()
    draw = np.random.default_rng(arguments.seed)
    gone = {film for film in linked if draw.random() < arguments.share}
    log = pl.read_csv(data / "interactions.tsv", separator="\t", infer_schema=False)
    epochs = f"training.epochs={arguments.epochs}"
    with tempfile.TemporaryDirectory() as spare:
        folder = Path(spare)
        before = write(folder / "before", data, gone, with_films=False)
        after = write(folder / "after", data, gone, with_films=True)
        seconds = {}
        start = time.perf_counter()
        run(CONFIG, folder / "updated", overrides=[*before, epochs])
        seconds["first"] = time.perf_counter() - start
        old = load(folder / "updated")
        start = time.perf_counter()
        with (place := Workspace(folder / "updated")).hold("graph_update"):
            told = update_graph(Run(load_config(CONFIG, [*after, epochs]), place))
        seconds["update"] = time.perf_counter() - start
        start = time.perf_counter()
        run(CONFIG, folder / "rebuilt", overrides=[*after, epochs])
        seconds["rebuild"] = time.perf_counter() - start
        run(CONFIG, folder / "again", overrides=[*after, epochs, f"seed={SEED + 1}"])
        versions = {name: load(folder / name) for name in ("updated", "rebuilt", "again")}
        films = sorted(gone.intersection(*(one.item_rows for one in versions.values())))
        users = [user for user in old.users.entries if all(user in one.user_rows for one in versions.values())]
        found = {"epochs": arguments.epochs, "new_films": len(films), "users": len(users), "facts": dict(told.facts)}
        near = {name: nearest(one, films) for name, one in versions.items()}
        by_version = {name: lists(one, users) for name, one in {"old": old, **versions}.items()}
        of_films = {name: scores(one, users, films) for name, one in versions.items()}
        for name in ("updated", "again"):
            pairs = zip(of_films[name].T, of_films["rebuilt"].T, strict=True)
            found[f"{name}_beside_rebuilt"] = {
                "nearest_ten_shared": shared(near[name], near["rebuilt"]),
                "lists_of_ten_shared": shared(by_version[name], by_version["rebuilt"]),
                "rank_correlation_of_scores": round(
                    float(np.nanmean([spearmanr(a, b).statistic for a, b in pairs])), 4
                ),
            }
        found["updated_beside_old_lists_of_ten_shared"] = shared(by_version["updated"], by_version["old"])
        found["new_films_in_a_list_of_ten"] = {
            name: round(float(np.mean([len(one & gone) for one in by_version[name].values()])), 4) for name in versions
        }
        rated = set(log.select("user", "item").rows())
        rated_UF = np.array([[(user, film) in rated for film in films] for user in users])
        found["chance_rated_above_not"] = {name: chance(of_films[name], rated_UF) for name in of_films}
        found["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
