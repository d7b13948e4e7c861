"""A planted shop of any size: power-law users and items, a graph whose entities drive clicks, conversions, times.

    python benchmarks/planted.py FOLDER [--events 1000000] [--users N] [--items N] [--part-rows 1000000] [--seed 7]

A row is one exposure with 0/1 labels (`layout = "impressions"`), in parts of `--part-rows` rows, each a span of time of
its own: `events/part-00000.parquet`, ... Users grow as 100 sqrt(events) and items as 10 sqrt(events) unless given (a
log grows faster than what it names: Heaps' law). Written beside them: `items.parquet`, `triples.parquet` (genre, maker,
two tags an item) and `shop.toml`, which reads it all. Memory stays that of one part. Equal arguments, equal bytes.

What is planted: a user has a taste (one genre of 50) and a favourite tag. Of what a user is shown, 60 % is of the
genre, and the log-odds of a click rise by 1.2 for the genre, by 1.5 for the favourite tag, and with the quality of
the maker, which also drives the conversion of a click. One item in twenty appears late and is new in the last parts.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

START = 1_700_000_000  # seconds since 1970
SPAN = 60 * 86_400
GENRES = 50
USER_SKEW, ITEM_SKEW = 2.0, 2.5  # rank = size * uniform ** skew: the density falls as rank ** (1 / skew - 1)
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Shop:
    """The sizes and the seed; everything else follows from them."""

    events: int
    users: int
    items: int
    seed: int = 7

    @classmethod
    def of(cls, events: int, users: int | None = None, items: int | None = None, seed: int = 7) -> Shop:
        """Return a shop of so many events, with users and items as they grow with the log unless given."""
        return cls(events, users or int(100 * events**0.5), items or max(4 * GENRES, int(10 * events**0.5)), seed)

    @property
    def makers(self) -> int:
        """How many makers there are."""
        return max(10, self.items // 20)

    @property
    def tags(self) -> int:
        """How many tags there are."""
        return max(20, self.items // 10)

    def genre(self, item: Array) -> Array:
        """Return an item's genre."""
        return item % GENRES

    def maker(self, item: Array) -> Array:
        """Return an item's maker."""
        return _hashed(item, self.seed + 1) % self.makers

    def tag(self, item: Array, which: int) -> Array:
        """Return one of an item's two tags; a genre has its own tenth of them, so that tags are shared within it."""
        own = max(2, self.tags // GENRES)
        return (self.genre(item) * own + _hashed(item, self.seed + 2 + which) % own) % self.tags

    def taste(self, user: Array) -> Array:
        """Return the genre that a user likes."""
        return _hashed(user, self.seed + 5) % GENRES

    def favourite(self, user: Array) -> Array:
        """Return the tag that a user likes best, one of those of the liked genre."""
        own = max(2, self.tags // GENRES)
        return (self.taste(user) * own + _hashed(user, self.seed + 6) % own) % self.tags

    def quality(self, maker: Array) -> Array:
        """Return a maker's quality in [-1, 1]."""
        found: Array = (_hashed(maker, self.seed + 7) % 2001) / 1000.0 - 1.0
        return found

    def released(self, item: Array) -> Array:
        """Return the share of the span at which an item appears: 0 but for one in twenty."""
        late = 0.5 + (_hashed(item, self.seed + 8) % 1000) / 2222.0
        return np.where(item % 20 == 0, late, 0.0)

    def part(self, start: int, rows: int) -> pl.DataFrame:
        """Return the rows [start, start + rows) of the log, growing in time."""
        rng = np.random.default_rng([self.seed, start])
        when = np.sort((start + rng.random(rows) * rows) / self.events)
        rank = (self.users * rng.random(rows) ** USER_SKEW).astype(np.int64)
        user = _spread(rank, self.users)
        genre = np.where(rng.random(rows) < 0.6, self.taste(user), rng.integers(0, GENRES, rows))
        per_genre = self.items // GENRES
        item = (per_genre * rng.random(rows) ** ITEM_SKEW).astype(np.int64) * GENRES + genre
        item = np.where(self.released(item) > when, (item + GENRES) % (per_genre * GENRES), item)
        loved = self.favourite(user)
        tagged = (self.tag(item, 0) == loved) | (self.tag(item, 1) == loved)
        quality = self.quality(self.maker(item))
        odds = -2.0 + 1.2 * (self.genre(item) == self.taste(user)) + 1.5 * tagged + 0.7 * quality
        click = rng.random(rows) < 1 / (1 + np.exp(-odds))
        bought = rng.random(rows) < 1 / (1 + np.exp(1.2 - 1.5 * quality - 0.8 * tagged))
        seconds = (START + when * SPAN).astype(np.int64)
        return pl.DataFrame(
            {"user": user, "item": item, "timestamp": seconds, "tab": rng.integers(0, 4, rows).astype(np.int8),
             "is_click": click.astype(np.int8), "bought": (click & bought).astype(np.int8)}
        )  # fmt: skip

    def catalogue(self) -> pl.DataFrame:
        """Return item, title and genre of every item."""
        item = np.arange(self.items // GENRES * GENRES)
        return pl.DataFrame({"item": item, "title": item, "genre": self.genre(item)}).with_columns(
            ("item " + pl.col("title").cast(pl.String)).alias("title"), "g" + pl.col("genre").cast(pl.String)
        )

    def triples(self) -> pl.DataFrame:
        """Return head, relation, tail: genre, maker and tags of every item."""
        item = np.arange(self.items // GENRES * GENRES)
        kinds = {"genre": self.genre(item), "maker": self.maker(item)}
        parts = [(name, name, values) for name, values in kinds.items()]
        parts += [("tag", "tag", self.tag(item, which)) for which in (0, 1)]
        frames = [
            pl.DataFrame({"head": item, "tail": values}).select(
                pl.col("head").cast(pl.String), pl.lit(name).alias("relation"),
                (pl.lit(f"{prefix}:") + pl.col("tail").cast(pl.String)).alias("tail"),
            )
            for name, prefix, values in parts
        ]  # fmt: skip
        return pl.concat(frames).unique(maintain_order=True)


def _hashed(values: Array, seed: int) -> Array:
    """Return well-mixed non-negative int64 of non-negative ones (splitmix64)."""
    mixed = values.astype(np.uint64) + np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)


def _spread(rank: Array, size: int) -> Array:
    """Return ids that say nothing of the rank: a bijection of [0, size) by a stride without a common factor."""
    stride = next(s for s in range(int(size * 0.618) | 1, 2 * size + 3, 2) if np.gcd(s, size) == 1)
    return (rank * stride) % size


CONFIG = """# Planted: {events} exposures of {items} items to {users} users.
name = "planted"
seed = 7
[interactions]
path = "events/*.parquet"
layout = "impressions"
context = ["tab"]
[interactions.labels]
click = "is_click"
conversion = "bought"
[items]
path = "items.parquet"
title = "title"
features = ["genre"]
[knowledge]
triples = ["triples.parquet"]
"""


def write(shop: Shop, folder: Path, part_rows: int = 1_000_000) -> dict[str, Any]:
    """Write the whole shop into a folder, part by part; return what was written."""
    began = time.perf_counter()
    (folder / "events").mkdir(parents=True, exist_ok=True)
    for stale in (folder / "events").glob("*.parquet"):
        stale.unlink()
    clicks = bought = 0
    for number, start in enumerate(range(0, shop.events, part_rows)):
        frame = shop.part(start, min(part_rows, shop.events - start))
        clicks, bought = clicks + int(frame["is_click"].sum()), bought + int(frame["bought"].sum())
        frame.write_parquet(folder / "events" / f"part-{number:05d}.parquet", row_group_size=262_144)
    shop.catalogue().write_parquet(folder / "items.parquet")
    triples = shop.triples()
    triples.write_parquet(folder / "triples.parquet")
    (folder / "shop.toml").write_text(CONFIG.format(events=shop.events, items=shop.items, users=shop.users))
    size = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
    return {
        "events": shop.events, "users": shop.users, "items": shop.items, "triples": triples.height, "clicks": clicks,
        "conversions": bought, "bytes": size, "seconds": round(time.perf_counter() - began, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=float, default=1e6)
    parser.add_argument("--users", type=int)
    parser.add_argument("--items", type=int)
    parser.add_argument("--part-rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    shop = Shop.of(int(options.events), options.users, options.items, options.seed)
    print(json.dumps(write(shop, options.folder, options.part_rows)))


if __name__ == "__main__":
    main()
