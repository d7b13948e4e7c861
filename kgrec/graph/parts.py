"""Which triples are train, validation and test: pairs held out whole, and nothing in train that was not known then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl

from kgrec.columns import HEAD_ROW, KNOWN_AT, PART, PART_TYPE, SOURCE, TAIL_ROW, TEST, TRAIN, VALIDATION
from kgrec.graph.merging import repeated

_PAIR: Final = "pair"


@dataclass(frozen=True)
class Ends:
    """The last instants of the log's train and validation parts (UTC)."""

    train: datetime
    validation: datetime


def assign_triples(
    rows: pl.DataFrame,
    held_out: tuple[float, float],
    ends: Ends | None,
    generator: Callable[[], np.random.Generator],
) -> pl.DataFrame:
    """Return the triples with their part.

    A part that the data names stands. Otherwise shares (validation, test) of the unordered pairs of nodes are held out
    whole, whatever direction and relation, so that no inverse leaks. Then time: a triple known only after the end of
    train is at the earliest validation, one known only after validation's end is test, whatever was said before.
    """
    if PART in rows.columns:
        parted = rows.with_columns(pl.col(PART).cast(PART_TYPE).fill_null(TRAIN))
    else:
        parted = _hold_out(rows, held_out, generator())
    if ends is not None and rows[KNOWN_AT].null_count() < rows.height:
        known, part = pl.col(KNOWN_AT), pl.col(PART)
        late = (
            pl.when(known > ends.validation).then(pl.lit(TEST))
            .when((known > ends.train) & (part == TRAIN)).then(pl.lit(VALIDATION))
            .otherwise(part.cast(pl.String))
        )  # fmt: skip
        parted = parted.with_columns(late.cast(PART_TYPE).alias(PART))
    return parted.cast({PART: PART_TYPE})


def _hold_out(rows: pl.DataFrame, shares: tuple[float, float], generator: np.random.Generator) -> pl.DataFrame:
    """Draw once a pair, in the order in which pairs first appear."""
    pair = rows.select(_pair().alias(_PAIR)).to_series()
    again = pair.is_in(repeated(pair).implode())
    first = ~again
    first[again.arg_true()] = pair.filter(again).is_first_distinct()
    draw = np.empty(rows.height)
    draw[first.to_numpy()] = generator.random(int(first.sum()))
    of_pair = pl.DataFrame({_PAIR: pair.filter(again), "draw": draw[again.to_numpy()]})
    draw[again.to_numpy()] = of_pair.select(pl.col("draw").first().over(_PAIR)).to_series()
    validation, test = shares
    part = (
        pl.when(pl.col("draw") < test).then(pl.lit(TEST))
        .when(pl.col("draw") < test + validation).then(pl.lit(VALIDATION))
        .otherwise(pl.lit(TRAIN)).cast(PART_TYPE).alias(PART)
    )  # fmt: skip
    return rows.with_columns(pl.DataFrame({"draw": draw}).select(part).to_series())


def _pair() -> pl.Expr:
    """One number for the two nodes of a triple, whatever its direction."""
    low, high = pl.min_horizontal(HEAD_ROW, TAIL_ROW), pl.max_horizontal(HEAD_ROW, TAIL_ROW)
    return low.cast(pl.Int64) * 2**32 + high.cast(pl.Int64)


def keep_in_train(parted: pl.DataFrame, source: str) -> pl.DataFrame:
    """Return the triples with those of one source in train, unless another triple of their pair is held out.

    A model's own proposal must not judge it, and must not show it the pair of a triple that does.
    """
    own = pl.col(SOURCE) == source
    if not parted.select(own.any()).item():
        return parted
    pair = [pl.min_horizontal(HEAD_ROW, TAIL_ROW), pl.max_horizontal(HEAD_ROW, TAIL_ROW)]
    alone = own.all().over(pair)
    return parted.with_columns(pl.when(alone).then(pl.lit(TRAIN, PART_TYPE)).otherwise(PART).alias(PART))


def pairs_across_parts(triples: pl.DataFrame) -> int:
    """Return how many triples of validation and test have their pair of nodes, either way round, in train, too.

    Such a triple is often the inverse of one that training saw, and flatters link prediction.
    """
    pairs = triples.select(_pair().alias(_PAIR), PART)
    held = pairs.filter(pl.col(PART) != TRAIN)
    trained = pairs.filter(pl.col(PART) == TRAIN).join(held, on=_PAIR, how="semi")  # the few, not the many, are hashed
    return held.join(trained, on=_PAIR, how="semi").height
