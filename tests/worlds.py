"""Planted worlds: small made-up logs and graphs whose answer is known, written as files beside a config.

In every world a user has one taste, an item one genre, and a user mostly picks items of their genre. So a model that
learns beats popularity, and a graph that names the genre places items that nobody picked yet.
`python -m tests.worlds configs/tiny` writes the tables of `configs/tiny.toml` anew.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from kgrec.artifacts import hash_file

ROOT = Path(__file__).parents[1]
TINY = ROOT / "configs" / "tiny.toml"
GENRES = ("blues", "fugue", "polka", "tango")
START = 1_700_000_000
SPAN = 10_000_000
COLD_FROM = 0.84

LIGHT = """
[model]
dimensions = 16
[model.towers]
hidden = [16]
dropout = 0.0
[training]
epochs = 6
batch_size = 256
learning_rate = 0.05
evaluate_every = 2
checkpoint_every = 1
threads = 1
[baselines]
neighbours = [20]
shrinkage = [0.0]
ease_lambda = [100.0]
[evaluation]
k = [10, 20]
"""


@dataclass(frozen=True)
class Pick:
    """A user took an item: when, as a share of the whole span, and how much they liked it (1 to 5)."""

    user: int
    item: int
    when: float
    value: int


def genre_of(item: int) -> int:
    """Return the genre of an item."""
    return item % len(GENRES)


def taste_of(user: int) -> int:
    """Return the genre that a user mostly picks."""
    return user % len(GENRES)


def draw_picks(seed: int, users: int, items: int, cold: int, a_user: int) -> list[Pick]:
    """Return who picked what, oldest first; the last `cold` items are picked only near the end of time.

    Four picks in five are of the user's genre. Within a genre the first items are the popular ones.
    """
    draw = random.Random(seed)
    warm = range(items - cold)
    fresh = range(items - cold, items)
    picks: list[Pick] = []
    for user in range(users):
        had: set[int] = set()
        for when in sorted(draw.random() for _ in range(a_user)):
            late = when > COLD_FROM and draw.random() < 0.5
            own = draw.random() < 0.8
            pool = [i for i in (fresh if late else warm) if i not in had and (genre_of(i) == taste_of(user)) == own]
            if not pool:
                continue
            item = draw.choices(pool, [1.0 if late else 1.0 / (4 + i / len(GENRES)) for i in pool])[0]
            had.add(item)
            picks.append(Pick(user, item, when, draw.choice((4, 5)) if own else draw.choice((1, 2, 3, 4))))
    return sorted(picks, key=lambda pick: (pick.when, pick.user))


def user_id(user: int) -> str:
    """Return the id of a user as in the files."""
    return f"u{user:02d}"


def item_id(item: int) -> str:
    """Return the id of an item as in the files."""
    return f"i{item:02d}"


def entity_id(item: int) -> str:
    """Return the id of an item's entity in the graph, unlike the item's own."""
    return f"e{item:02d}"


def instant(when: float) -> int:
    """Return seconds since 1970."""
    return START + int(when * SPAN)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file, the same bytes for the same rows everywhere."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_graph(folder: Path, items: int, seed: int) -> None:
    """Write the items' titles, their entities and the graph: a genre each, and a maker who mostly keeps to a genre."""
    draw = random.Random(seed)
    titles = ((item_id(i), f"The {GENRES[genre_of(i)].title()} Number {i}", 1990 + i % 30) for i in range(items))
    write_table(folder / "items.csv", ("item", "title", "year"), titles)
    write_table(folder / "links.csv", ("item", "entity"), ((item_id(i), entity_id(i)) for i in range(items)))
    genres = [(entity_id(i), "genre", f"g{genre_of(i)}") for i in range(items)]
    kept = ((genre_of(i) + draw.choice((0, 0, 0, 1))) % len(GENRES) for i in range(items))
    makers = [genre + len(GENRES) * draw.randrange(2) for genre in kept]
    made = [(entity_id(i), "maker", f"m{maker}") for i, maker in enumerate(makers)]
    write_table(folder / "triples.csv", ("head", "relation", "tail"), [*genres, *made])
    names = [(f"g{at}", name) for at, name in enumerate(GENRES)]
    names += [(f"m{maker}", f"maker {maker}") for maker in sorted(set(makers))]
    write_table(folder / "labels.csv", ("entity", "label"), names)


def write_tiny(folder: Path) -> None:
    """Write the tables of `configs/tiny.toml`: ratings, users, items and a graph."""
    users, items, cold = 80, 96, 16
    ratings = (
        (user_id(p.user), item_id(p.item), "rating", p.value, instant(p.when))
        for p in draw_picks(11, users, items, cold, 16)
    )
    write_table(folder / "ratings.csv", ("user", "item", "event", "value", "timestamp"), ratings)
    draw = random.Random(12)
    people = ((user_id(user), draw.randrange(18, 70)) for user in range(users))
    write_table(folder / "users.csv", ("user", "age"), people)
    write_graph(folder, items, 13)


def events_world(folder: Path) -> Path:
    """Write a log of clicks in two Parquet files with a graph, of which the last 16 items have no click in train."""
    users, items, cold = 160, 96, 16
    picks = draw_picks(21, users, items, cold, 16)
    log = pl.DataFrame(
        {
            "who": [user_id(p.user) for p in picks],
            "what": [item_id(p.item) for p in picks],
            "event": ["click"] * len(picks),
            "at": [instant(p.when) for p in picks],
        }
    )
    half = log.height // 2
    log[:half].write_parquet(folder / "log-1.parquet")
    log[half:].write_parquet(folder / "log-2.parquet")
    write_graph(folder, items, 22)
    config = """
name = "clicks"
[interactions]
path = "log-*.parquet"
columns = { user = "who", item = "what", time = "at" }
[items]
path = "items.csv"
[knowledge]
triples = ["triples.csv"]
links = "links.csv"
labels = "labels.csv"
"""
    return write_config(folder, config + LIGHT)


def impressions_world(folder: Path) -> Path:
    """Write exposures with the labels is_click and long_view and the context column tab.

    A click depends on taste and on the tab; a long view of what was clicked on the tab alone.
    """
    draw = random.Random(31)
    users, items = 80, 40
    rows = []
    for user in range(users):
        for _ in range(50):
            item, tab = draw.randrange(items), draw.choice(("feed", "search"))
            own = genre_of(item) == taste_of(user)
            click = draw.random() < (0.75 if own else 0.08) * (1.0 if tab == "search" else 0.4)
            long = click and draw.random() < (0.8 if tab == "search" else 0.2)
            rows.append((user_id(user), item_id(item), instant(draw.random()), int(click), int(long), tab))
    rows.sort(key=lambda row: row[2])
    header = ("user", "item", "time", "is_click", "long_view", "tab")
    pl.DataFrame(rows, schema=header, orient="row").write_parquet(folder / "exposures.parquet")
    write_graph(folder, items, 32)
    config = """
name = "exposures"
[interactions]
path = "exposures.parquet"
layout = "impressions"
context = ["tab"]
[interactions.labels]
click = "is_click"
conversion = "long_view"
[knowledge]
triples = ["triples.csv"]
links = "links.csv"
[gate]
baselines = ["popularity"]
"""
    return write_config(folder, config + LIGHT)


def triples_world(folder: Path) -> Path:
    """Write triples alone: relation r moves an entity r steps around a ring, so what is held out can be computed."""
    draw = random.Random(41)
    entities, relations = 40, 6
    rows = []
    for relation in range(1, relations + 1):
        for head in range(entities):
            part = draw.choices(("train", "valid", "test"), (0.8, 0.1, 0.1))[0]
            rows.append((f"n{head}", f"by{relation}", f"n{(head + relation) % entities}", part))
    write_table(folder / "ring.csv", ("head", "relation", "tail", "split"), rows)
    config = """
name = "ring"
tasks = ["kg"]
[knowledge]
triples = ["ring.csv"]
[split]
kind = "column"
"""
    return write_config(folder, config + LIGHT.replace("epochs = 6", "epochs = 40"))


def bytes_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path within it."""
    return {str(path.relative_to(folder)): hash_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def write_config(folder: Path, text: str) -> Path:
    """Write a config beside its tables and return its path."""
    path = folder / "world.toml"
    path.write_text(text, encoding="utf-8")
    return path


if __name__ == "__main__":
    write_tiny(Path(sys.argv[1]))
