"""Against noise: relations that do not earn their place, degree caps, damped hubs, learned confidence of triples.

All of it touches the train part alone. Nodes below `num_items` are items.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from kgrec.columns import HEAD_ROW, PART, RELATION_ROW, TAIL_ROW, TRAIN, WEIGHT

_AT: Final = "at"
SMALLEST_WEIGHT: Final = 1e-3


class NoiseConfig(BaseModel):
    """Against noise in the graph; everything here is off unless asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prune: bool = Field(
        False,
        description="leave out relations without which the graph alone ranks the validation part better, by more than "
        "one standard error over users",
    )
    confidence: bool = Field(
        False, description="learn how credible each triple is from corrupted ones, and weigh it so (0-1)"
    )
    max_degree: int | None = Field(
        None, ge=1,
        description="most triples of train that an entity that is no item may keep: the heaviest, of equal ones a draw",
    )  # fmt: skip
    hub_damping: float = Field(
        0.0, ge=0.0, le=2.0, description="weigh a triple by the degree of its entity to minus this power"
    )


def cap_degrees(
    triples: pl.DataFrame, num_items: int, most: int, generator: np.random.Generator
) -> pl.DataFrame:  # fmt: skip
    """Return the triples without those of train beyond the `most` heaviest of an entity; items have no cap.

    A triple of two entities has to be kept at both ends. Equal weights are ordered by a draw.
    """
    numbered = triples.with_row_index(_AT).with_columns(pl.Series("draw", generator.random(triples.height)))
    train = numbered.filter(pl.col(PART) == TRAIN)
    ends = pl.concat([train.select(_AT, WEIGHT, "draw", pl.col(end).alias("node")) for end in (HEAD_ROW, TAIL_ROW)])
    ranked = ends.filter(pl.col("node") >= num_items).sort([WEIGHT, "draw"], descending=[True, False])
    beyond = ranked.filter(pl.int_range(pl.len()).over("node") >= most)
    return numbered.filter(~pl.col(_AT).is_in(beyond[_AT].implode())).drop(_AT, "draw")


def damp_hubs(triples: pl.DataFrame, num_items: int, power: float) -> pl.DataFrame:
    """Return the triples with weight * degree^-power, degree being that of the larger entity end over the train part.

    Items do not count as hubs; a triple of two items keeps its weight. Test and validation keep theirs.
    """
    train = triples.filter(pl.col(PART) == TRAIN)
    ends = pl.concat([train.select(pl.col(end).alias("node")) for end in (HEAD_ROW, TAIL_ROW)])
    degree = ends.filter(pl.col("node") >= num_items).group_by("node").len("degree")
    with_degree = triples
    for end in (HEAD_ROW, TAIL_ROW):
        named = degree.rename({"node": end, "degree": f"degree_{end}"})
        with_degree = with_degree.join(named, on=end, how="left", maintain_order="left")
    larger = pl.max_horizontal(pl.lit(1), *(pl.col(f"degree_{end}").fill_null(1) for end in (HEAD_ROW, TAIL_ROW)))
    damped = (pl.col(WEIGHT) * larger.cast(pl.Float64) ** -power).cast(pl.Float32)
    return with_degree.with_columns(
        pl.when(pl.col(PART) == TRAIN).then(damped).otherwise(WEIGHT).alias(WEIGHT)
    ).select(triples.columns)  # fmt: skip


def weigh(triples: pl.DataFrame, confidence: np.ndarray[Any, np.dtype[np.float64]]) -> pl.DataFrame:
    """Return the triples with the weight of train times the confidence (one a triple, 0-1), at least .001."""
    factor = pl.Series("factor", np.maximum(confidence, SMALLEST_WEIGHT)).cast(pl.Float32)
    weighed = pl.when(pl.col(PART) == TRAIN).then(pl.col(WEIGHT) * pl.col("factor")).otherwise(WEIGHT)
    return triples.with_columns(factor).with_columns(weighed.alias(WEIGHT)).drop("factor")


def without_relations(triples: pl.DataFrame, relations: list[int]) -> pl.DataFrame:
    """Return the triples of all other relations."""
    return triples.filter(~pl.col(RELATION_ROW).is_in(relations)) if relations else triples
