"""Links by name on MovieLens-100k, judged against its own link file; prints one JSON object.

    python benchmarks/linking.py [--seed N]

The demo's Freebase graph has no names, so labels are made from the items, as a knowledge base would write them: the
article in front, a year for nine in ten (one off for one in twenty), one in ten misspelt, one in ten in other case or
punctuation, alternative titles dropped from half. Beside the right entities stand wrong ones: remakes of the same name
and another year, books and albums of the same name and year, and sequels. 84 items have no right entity at all.
Truth is the link file; it links items of the same title and year (18 pairs in the data) to different entities, which no
name can tell apart: those belong to review. Every wrong link of the sure class is listed.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import string

import polars as pl

from kgrec.data.datasets import get_dataset
from kgrec.graph.linking import REVIEW, SURE, VERDICT, LinkingConfig, find_links

ARTICLES = ("The", "A", "An", "Il", "La", "Le", "Les", "L'", "Das", "Der", "Die", "El", "Los")


def natural(title: str) -> str:
    """Put the article in front: "Usual Suspects, The" is "The Usual Suspects"."""
    head, bracket, rest = title.partition(" (")
    start, comma, last = head.rpartition(", ")
    named = f"{last} {start}" if comma and last in ARTICLES else head
    return named + bracket + rest


def misspelt(text: str, draw: random.Random) -> str:
    at = draw.randrange(len(text))
    kind = draw.choice(("drop", "double", "swap", "replace"))
    if kind == "drop":
        return text[:at] + text[at + 1 :] or text
    if kind == "double":
        return text[:at] + text[at] + text[at:]
    if kind == "swap":
        return text[:at] + text[at : at + 2][::-1] + text[at + 2 :]
    return text[:at] + draw.choice(string.ascii_lowercase) + text[at + 1 :]


def label_of(title: str, draw: random.Random) -> str:
    label = natural(title)
    if "(" in label and draw.random() < 0.5:
        label = label.split(" (")[0]
    if draw.random() < 0.1:
        label = misspelt(label, draw)
    if draw.random() < 0.1:
        label = draw.choice((str.upper, str.lower, lambda text: text.replace(":", " -").replace("'", "")))(label)
    return label


def world(items: pl.DataFrame, links: dict[str, str], draw: random.Random) -> pl.DataFrame:
    """(entity, label, year) of right and wrong entities, in random order."""
    rows: list[tuple[str, str, int | None]] = []
    for item, title, year in items.iter_rows():
        if item in links:
            told = None if year is None or draw.random() < 0.1 else year + (draw.random() < 0.05)
            rows.append((links[item], label_of(title, draw), told))
        if year is not None and draw.random() < 0.1:
            rows.append((f"remake.{item}", label_of(title, draw), year + draw.choice((-1, 1)) * draw.randrange(8, 40)))
        if draw.random() < 0.05:
            rows.append((f"book.{item}", natural(title), year))
        if year is not None and draw.random() < 0.05:
            rows.append((f"sequel.{item}", f"{natural(title)} II", year + draw.randrange(1, 5)))
    draw.shuffle(rows)
    return pl.DataFrame(rows, schema={"entity": pl.String, "label": pl.String, "year": pl.Int64}, orient="row")


def judged(found: pl.DataFrame, links: dict[str, str], linkable: int) -> dict[str, object]:
    sure = found.filter(pl.col(VERDICT) == SURE)
    wrong = [row for row in sure.iter_rows(named=True) if links.get(row["item"]) != row["entity"]]
    right = sure.height - len(wrong)
    waiting = found.filter((pl.col(VERDICT) == REVIEW) & ~pl.col("item").is_in(sure["item"].implode()))
    shown = {(row["item"], row["entity"]) for row in waiting.iter_rows(named=True)}
    return {
        "sure": sure.height, "precision": right / max(sure.height, 1), "recall": right / linkable,
        "by_method": dict(sure["method"].value_counts().sort("method").iter_rows()),
        "items_to_review": waiting["item"].n_unique(),
        "right_link_among_those_to_review": sum((i, e) in shown for i, e in links.items()),
        "wrong": [[row["title"], row["item_year"], row["label"], row["entity_year"], row["entity"], row["method"]]
                  for row in wrong],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    seed = parser.parse_args().seed
    folder = get_dataset("ml-100k", logging.getLogger(__name__).info)
    text = {"separator": "\t", "infer_schema": False, "quote_char": None}
    table = pl.read_csv(folder / "items.tsv", **text)
    items = table.select("item", "title", pl.col("release_year").cast(pl.Int64, strict=False).alias("year"))
    links = dict(pl.read_csv(folder / "item_entity.tsv", **text).select("item", "entity").iter_rows())
    entities = world(items, links, random.Random(seed))
    films = entities.filter(~pl.col("entity").str.starts_with("book."))
    answer = {"seed": seed, "items": items.height, "linkable": len(links), "entities": entities.height}
    for name, known, config in (
        ("title and year, entities of other types left out", films, LinkingConfig()),
        ("title and year, books among the entities", entities, LinkingConfig()),
        ("title alone", films.with_columns(year=pl.lit(None, pl.Int64)), LinkingConfig()),
        ("title and year, exact", films, LinkingConfig(methods=("exact",))),
        ("title and year, exact and normalised", films, LinkingConfig(methods=("exact", "normalised"))),
    ):
        answer[name] = judged(find_links(items, known, config, {}), links, len(links))
    print(json.dumps(answer, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
