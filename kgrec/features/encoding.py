"""Feature columns as numbers for a model: fitted on train rows only, saved as JSON, never as code.

A column is categorical when it is text, boolean, declared context of a discrete type, or whole numbers with few
distinct train values; every other number is numeric. Categories are counted from 1 by falling frequency in
train; 0 is unknown. A sequence is pooled: the share of each of its frequent values becomes a number.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from kgrec.errors import ArtifactError
from kgrec.features.backends import BackendName
from kgrec.features.column_statistics import ColumnStatistics, transformed

MAX_CATEGORIES = 1000
MISSING = ":missing"


class FeaturesConfig(BaseModel):
    """[features]: how columns become numbers for the towers, and where feature tables are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    categories: int = Field(
        MAX_CATEGORIES,
        ge=1,
        description="How many values of a categorical column, the most frequent in train, get a code.",
    )
    hash_buckets: int = Field(
        0, ge=0, description="Codes that all other values of such a column share by their hash; 0: they are unknown."
    )
    sequence_values: int = Field(
        32, ge=1, description="How many values of a sequence, the most frequent in train, become a share each."
    )
    backend: BackendName = Field(
        BackendName.PARQUET,
        description='What keeps the feature table of every run: "parquet", or "delta" (needs the extra `delta`).',
    )


@dataclass(frozen=True)
class NumericColumn:
    """(f(value) - mean) / std, f = log1p where `log` (values below 0 count as 0), null and NaN become 0.

    indicator: a train row had no value, so a column that says so (1.0 = missing) follows.
    """

    name: str
    log: bool
    mean: float
    std: float
    indicator: bool


@dataclass(frozen=True)
class CategoricalColumn:
    """`values[i]` (as text) is category i + 1; null is 0, and so is any other value unless hashed into `buckets`."""

    name: str
    values: tuple[str, ...]
    buckets: int = 0

    @property
    def cardinality(self) -> int:
        """How many codes there are, the unknown included."""
        return len(self.values) + 1 + self.buckets


@dataclass(frozen=True)
class SequenceColumn:
    """A list of text pooled into shares: `name=value` is how much of the list is this value; 0 for an empty list."""

    name: str
    values: tuple[str, ...]

    @property
    def pooled_names(self) -> list[str]:
        """The names of the shares."""
        return [f"{self.name}={value}" for value in self.values]


@dataclass(frozen=True)
class FeatureEncoder:
    """Turns the feature rows of `build_features` or `look_up` into arrays. `ignored`: columns it cannot use."""

    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoricalColumn, ...]
    ignored: tuple[str, ...] = ()
    sequences: tuple[SequenceColumn, ...] = ()

    @classmethod
    def fit(
        cls, train: pl.DataFrame | Iterable[pl.DataFrame], *, context: Collection[str] = (),
        counts: Collection[str] = (), config: FeaturesConfig | None = None,
    ) -> FeatureEncoder:  # fmt: skip
        """Return the encoder of these train rows (hand in no other rows), which may come in frames of like columns.

        context: declared request-time columns. counts: columns to be read through log1p besides whole numbers that are
        never negative. Columns of other types (times) and numbers that never vary are ignored. The figures of many
        frames are those of one but for the last bits of means.
        """
        config = config or FeaturesConfig()
        found: dict[str, ColumnStatistics] = {}
        for frame in [train] if isinstance(train, pl.DataFrame) else train:
            for name, dtype in frame.schema.items():
                if name not in found:
                    found[name] = ColumnStatistics(name, dtype, context, counts)
                found[name].add(frame[name])
        numeric, categorical, ignored, sequences = [], [], [], []
        for column in found.values():
            if column.is_category:
                categorical.append(_fit_categories(column, config))
            elif column.is_sequence:
                sequences.append(_fit_sequence(column, config))
            elif (fitted := _fit_number(column)) is not None:
                numeric.append(fitted)
            else:
                ignored.append(column.name)
        return cls(tuple(numeric), tuple(categorical), tuple(ignored), tuple(sequences))

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the columns that `encode` reads."""
        numbers, categories = (column.name for column in self.numeric), (column.name for column in self.categorical)
        return (*numbers, *categories, *(column.name for column in self.sequences))

    @property
    def numeric_names(self) -> tuple[str, ...]:
        """The names of the numeric columns of `encode`, missing indicators and pooled shares included."""
        plain = [[column.name, column.name + MISSING][: 1 + column.indicator] for column in self.numeric]
        pooled = [column.pooled_names for column in self.sequences]
        return tuple(name for names in (*plain, *pooled) for name in names)

    @property
    def categorical_names(self) -> tuple[str, ...]:
        """The names of the categorical columns of `encode`."""
        return tuple(column.name for column in self.categorical)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """How many codes each categorical column has, the unknown (0) included."""
        return tuple(column.cardinality for column in self.categorical)

    def encode(self, frame: pl.DataFrame) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return numeric_NF (float32) and categorical_NC (int64) for N rows; a column that is absent is all missing."""
        numeric_NF = np.empty((frame.height, len(self.numeric_names)), np.float32)
        for place, values_N in enumerate(self._numbers(frame)):
            numeric_NF[:, place] = values_N
        categorical_NC = np.empty((frame.height, len(self.categorical)), np.int64)
        for place, category in enumerate(self.categorical):
            categorical_NC[:, place] = _codes(_column(frame, category.name), category)
        return numeric_NF, categorical_NC

    def _numbers(self, frame: pl.DataFrame) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the numeric columns one by one, in the order of their names."""
        for number in self.numeric:
            column = transformed(_column(frame, number.name), number.log)
            scaled = ((column - number.mean) / number.std).fill_null(0.0)
            yield scaled.to_numpy().astype(np.float32)
            if number.indicator:
                yield column.is_null().to_numpy().astype(np.float32)
        for sequence in self.sequences:
            yield from _shares(_column(frame, sequence.name), sequence)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description from which `from_dict` makes an equal encoder."""
        return {
            "numeric": [asdict(column) for column in self.numeric],
            "categorical": [asdict(column) for column in self.categorical],
            "ignored": list(self.ignored),
            "sequences": [asdict(column) for column in self.sequences],
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> FeatureEncoder:
        """Read what `to_dict` wrote; ArtifactError when keys are missing or others."""
        try:
            return cls(
                tuple(NumericColumn(**column) for column in raw["numeric"]),
                tuple(
                    CategoricalColumn(**{**column, "values": tuple(column["values"])}) for column in raw["categorical"]
                ),
                tuple(raw["ignored"]),
                tuple(SequenceColumn(column["name"], tuple(column["values"])) for column in raw["sequences"]),
            )
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"no feature encoder: {error}") from None


def _fit_categories(column: ColumnStatistics, config: FeaturesConfig) -> CategoricalColumn:
    values = column.frequencies.values()
    kept = tuple(values.head(config.categories))
    return CategoricalColumn(column.name, kept, config.hash_buckets if len(values) > len(kept) else 0)


def _fit_sequence(column: ColumnStatistics, config: FeaturesConfig) -> SequenceColumn:
    return SequenceColumn(column.name, tuple(column.frequencies.values().head(config.sequence_values)))


def _fit_number(column: ColumnStatistics) -> NumericColumn | None:
    moments = column.moments
    indicator = moments.count < column.rows
    if not moments.count or (moments.low == moments.high and not indicator):
        return None
    std = moments.std
    return NumericColumn(column.name, column.log, moments.mean, std if std > 1e-12 else 1.0, indicator)


def _column(frame: pl.DataFrame, name: str) -> pl.Series:
    return (
        frame[name] if name in frame.columns else pl.repeat(None, frame.height, dtype=pl.Null, eager=True).alias(name)
    )


def _codes(column: pl.Series, category: CategoricalColumn) -> npt.NDArray[np.int64]:
    known = pl.DataFrame(
        {"value": pl.Series(category.values, dtype=pl.String), "code": np.arange(1, len(category.values) + 1)}
    )
    asked = column.cast(pl.String).alias("value").to_frame()
    codes = asked.join(known, on="value", how="left", maintain_order="left")["code"]
    if category.buckets:
        others = asked["value"].unique().drop_nulls()
        hashed = [category.cardinality - 1 - zlib.crc32(value.encode()) % category.buckets for value in others]
        table = pl.DataFrame({"value": others, "code": pl.Series(hashed, dtype=pl.Int64)})
        codes = codes.fill_null(asked.join(table, on="value", how="left", maintain_order="left")["code"])
    return codes.fill_null(0).to_numpy().astype(np.int64)


def _shares(column: pl.Series, sequence: SequenceColumn) -> list[npt.NDArray[np.float32]]:
    """Return the share of each value in each row's list."""
    lists = column.cast(pl.List(pl.String))
    length = lists.list.len().fill_null(0).clip(lower_bound=1)
    counts = [lists.list.count_matches(value).fill_null(0) for value in sequence.values]
    return [(count / length).to_numpy().astype(np.float32) for count in counts]
