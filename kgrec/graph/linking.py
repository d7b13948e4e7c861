"""Links from items to entities where nobody gave any: by title and label, with year and type as tie breakers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator
from rapidfuzz import fuzz, process

from kgrec.columns import ENTITY, ITEM, LABEL, SCORE, TITLE
from kgrec.graph.titles import Title, read_title

VERDICT: Final = "verdict"
SURE, REVIEW, ACCEPT, REJECT = "sure", "review", "accept", "reject"
METHOD: Final = "method"
REASON: Final = "reason"
FOUND_SCHEMA: Final = {
    ITEM: pl.String(), TITLE: pl.String(), ENTITY: pl.String(), LABEL: pl.String(), SCORE: pl.Float64(),
    METHOD: pl.String(), "item_year": pl.Int32(), "entity_year": pl.Int32(), VERDICT: pl.String(), REASON: pl.String(),
}  # fmt: skip
_NORMALISED, _NO_YEAR, _NEAR_YEAR, _OTHER_YEAR, _OTHER_PART = 0.99, 0.03, 0.02, 0.3, 0.15
_BLOCK: Final = 2_000
_CANDIDATES: Final = 8


class LinkingConfig(BaseModel):
    """How items find their entities by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: tuple[Literal["exact", "normalised", "fuzzy"], ...] = Field(
        ("exact", "normalised", "fuzzy"),
        min_length=1,
        description="what counts as alike: the same text; the same without case, accents, articles, punctuation and "
        "brackets; nearly the same",
    )
    item_year: str | None = Field(
        None, description="feature of [items] that holds the item's year; unset: a year in brackets in the title"
    )
    entity_year: str | None = Field(
        None, description="relation or RDF property whose value holds the entity's year; unset: one in its label"
    )
    type_relation: str | None = Field(None, description="relation that says what kind of thing an entity is")
    types: tuple[str, ...] = Field(
        (), description="kinds that items are, ids or labels; entities of known other kinds are no candidates"
    )
    sure: float = Field(0.93, ge=0.0, le=1.0, description="score from which a link is taken, 0-1; others are reviewed")
    unsure: float = Field(0.8, ge=0.0, le=1.0, description="score from which a link is worth a review, 0-1")
    margin: float = Field(
        0.04, ge=0.0, le=1.0, description="how far the best candidate must be ahead of the next to be sure, 0-1"
    )
    verdicts: str | None = Field(
        None,
        description="table with the columns item, entity, verdict: people's word on links under review, accept or "
        "reject (empty: not yet); `kgrec graph review` writes such a table",
    )

    @model_validator(mode="after")
    def _in_order(self) -> LinkingConfig:
        if self.unsure > self.sure:
            raise ValueError("unsure must not be above sure")
        if bool(self.types) != (self.type_relation is not None):
            raise ValueError("type_relation and types go together")
        return self


@dataclass(frozen=True)
class Candidate:
    """An entity that an item may be, and how much speaks for it (0-1)."""

    at: int
    score: float
    method: str
    year_agrees: bool | None


def find_links(
    items: pl.DataFrame, entities: pl.DataFrame, config: LinkingConfig, verdicts: Mapping[tuple[str, str], str]
) -> pl.DataFrame:
    """Return the links found (`FOUND_SCHEMA`), in the order of the items, the best candidate first.

    items: item, title, year (null where unknown); entities: entity, label, year. An item without a title finds none.
    A score starts at 1 for the same text, .99 for the same normal form, the share of equal letters else (Indel), and
    loses .03 where a year is unknown, .02 where it is one off, .3 where it differs, .15 where the numbers in the titles
    differ. A link is sure when its score is, when the next candidate is `margin` behind, when a fuzzy one has the same
    year, and when no other item claims the entity as strongly. verdicts: (item, entity) to accept or reject; an
    accepted link is taken whatever its score, a rejected pair is no candidate.
    """
    named = [read_title(label, year) for label, year in entities.select(LABEL, "year").iter_rows()]
    ids: list[str] = entities[ENTITY].to_list()
    index = _Index(named)
    rows: list[tuple[object, ...]] = []
    for item, text, year in items.select(ITEM, TITLE, "year").iter_rows():
        if text is None:
            continue
        title = read_title(text, year)
        found = [one for one in index.candidates(title, config) if verdicts.get((item, ids[one.at])) != REJECT]
        found = _best_per_entity(found, ids)
        decided, reason = _decide(found, config)
        for place, one in enumerate(found[:3]):
            if one.score < config.unsure:
                continue
            verdict, why = (decided, reason) if place == 0 else (REVIEW, "another candidate is at least as good")
            rows.append((item, text, ids[one.at], named[one.at].raw, round(one.score, 4), one.method, title.year,
                         named[one.at].year, verdict, why))  # fmt: skip
    table = pl.DataFrame(rows, schema=FOUND_SCHEMA, orient="row")
    return _with_verdicts(_one_item_an_entity(table), items, entities, verdicts)


class _Index:
    """Labels by text, by normal form, and by words, so that not every pair is compared."""

    def __init__(self, named: Sequence[Title]) -> None:
        self._named = named
        self._raw: dict[str, list[int]] = defaultdict(list)
        self._forms: dict[str, list[int]] = defaultdict(list)
        self._blocks: dict[str, list[int]] = defaultdict(list)
        for at, title in enumerate(named):
            self._raw[title.raw.strip()].append(at)
            for form in title.forms:
                self._forms[form].append(at)
            for key in _keys(title):
                self._blocks[key].append(at)

    def candidates(self, title: Title, config: LinkingConfig) -> list[Candidate]:
        """Return what may be meant, the best first; ties by the order of the entities."""
        similar: dict[int, tuple[float, str]] = {}
        if "fuzzy" in config.methods:
            similar |= self._similar(title, config.unsure)
        if "normalised" in config.methods:
            similar |= {at: (_NORMALISED, "normalised") for form in title.forms for at in self._forms.get(form, ())}
        if "exact" in config.methods:
            similar |= dict.fromkeys(self._raw.get(title.raw.strip(), ()), (1.0, "exact"))
        found = [_judged(at, score, method, title, self._named[at]) for at, (score, method) in similar.items()]
        return sorted(found, key=lambda one: (-one.score, one.at))

    def _similar(self, title: Title, cutoff: float) -> dict[int, tuple[float, str]]:
        near = sorted(
            {at for key in _keys(title) for at in self._blocks.get(key, ()) if len(self._blocks[key]) <= _BLOCK}
        )
        found: dict[int, tuple[float, str]] = {}
        for form in title.forms:
            choices = {at: self._named[at].forms[0] for at in near}
            for _, score, at in process.extract(
                form, choices, scorer=fuzz.ratio, score_cutoff=100 * cutoff, limit=_CANDIDATES
            ):
                if at not in found or found[at][0] < score / 100:
                    found[at] = (min(score / 100, _NORMALISED), "fuzzy")
        return found


def _keys(title: Title) -> list[str]:
    """Words and beginnings that a misspelt title most likely shares with the right one."""
    words = title.forms[0].split()
    return [*dict.fromkeys([*(f"w {word}" for word in words if len(word) > 2), f"b {title.forms[0][:3]}"])]


def _judged(at: int, score: float, method: str, title: Title, label: Title) -> Candidate:
    agrees: bool | None = None
    if title.year is None or label.year is None:
        score -= _NO_YEAR
    else:
        apart = abs(title.year - label.year)
        agrees = apart == 0
        score -= 0.0 if apart == 0 else _NEAR_YEAR if apart == 1 else _OTHER_YEAR
    if title.parts != label.parts:
        score -= _OTHER_PART
    return Candidate(at, max(score, 0.0), method, agrees)


def _best_per_entity(found: list[Candidate], ids: Sequence[str]) -> list[Candidate]:
    best: dict[str, Candidate] = {}
    for one in found:
        best.setdefault(ids[one.at], one)
    return list(best.values())


def _decide(found: list[Candidate], config: LinkingConfig) -> tuple[str, str]:
    if not found:
        return REVIEW, ""
    best = found[0]
    if best.score < config.sure:
        return REVIEW, "the score is low"
    if len(found) > 1 and best.score - found[1].score < config.margin:
        return REVIEW, "another candidate is as good"
    if best.method == "fuzzy" and best.year_agrees is not True:
        return REVIEW, "nearly the same title, and no year that agrees"
    return SURE, f"{best.method} match" + (", same year" if best.year_agrees else "")


def _one_item_an_entity(table: pl.DataFrame) -> pl.DataFrame:
    """Send the links of an entity that several items claim to review; a clearly better claim stays sure."""
    sure = pl.col(VERDICT) == SURE
    best = pl.when(sure).then(SCORE).max().over(ENTITY)
    ahead = (pl.when(sure).then(SCORE) == best).sum().over(ENTITY) == 1
    contested = sure & ~((pl.col(SCORE) == best) & ahead)
    return table.with_columns(
        pl.when(contested).then(pl.lit(REVIEW)).otherwise(VERDICT).alias(VERDICT),
        pl.when(contested).then(pl.lit("several items claim this entity")).otherwise(REASON).alias(REASON),
    )


def _with_verdicts(
    table: pl.DataFrame, items: pl.DataFrame, entities: pl.DataFrame, verdicts: Mapping[tuple[str, str], str]
) -> pl.DataFrame:
    """Take the links that a person accepted, whatever else was found for those items."""
    accepted = [pair for pair, verdict in verdicts.items() if verdict == ACCEPT]
    said = pl.DataFrame(accepted, schema={ITEM: pl.String, ENTITY: pl.String}, orient="row")
    labels = entities.select(ENTITY, LABEL, pl.col("year").alias("entity_year")).unique(ENTITY, keep="first")
    titles = items.select(ITEM, TITLE, pl.col("year").alias("item_year"))
    known = said.join(titles, on=ITEM, maintain_order="left").join(labels, on=ENTITY, how="left", maintain_order="left")
    taken = known.with_columns(
        pl.lit(1.0).alias(SCORE), pl.lit("person").alias(METHOD), pl.lit(SURE).alias(VERDICT),
        pl.lit("accepted by a person").alias(REASON),
    ).select(pl.col(name).cast(dtype) for name, dtype in FOUND_SCHEMA.items())  # fmt: skip
    rest = table.filter(~pl.col(ITEM).is_in(taken[ITEM].implode()) & ~pl.col(ENTITY).is_in(taken[ENTITY].implode()))
    order = items.select(ITEM).with_row_index("at")
    both = pl.concat([taken, rest]).join(order, on=ITEM, maintain_order="left")
    return both.sort("at", maintain_order=True).drop("at")
