"""Feature columns as numbers for a model: fitted on train rows only, saved as JSON, never as code.

A column is categorical when it is text, boolean, declared context of a discrete type, or whole numbers with few
distinct train values; every other number is numeric. Categories are counted from 1 by falling frequency in
train; 0 is unknown. A sequence is pooled: the share of each of its frequent values becomes a number.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from kgrec.errors import ArtifactError
from kgrec.features.backends import BackendName

MAX_CATEGORIES = 1000
FEW_INTEGERS = 50
MISSING = ":missing"
_BLOCK = 1 << 22  # rows whose float64 are held at a time; sums are of blocks, so that a column need not be


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
        cls, train: pl.DataFrame | pl.LazyFrame, *, context: Collection[str] = (), counts: Collection[str] = (),
        config: FeaturesConfig | None = None,
    ) -> FeatureEncoder:  # fmt: skip
        """Return the encoder of these train rows (hand in no other rows); of lazy ones a column is held at a time.

        context: declared request-time columns. counts: columns to be read through log1p besides whole numbers that are
        never negative. Columns of other types (times) and numbers that never vary are ignored.
        """
        config = config or FeaturesConfig()
        numeric, categorical, ignored, sequences = [], [], [], []
        lazy = train.lazy()
        for name in lazy.collect_schema():
            column = lazy.select(name).collect(engine="streaming").to_series()
            if _is_category(column, context):
                categorical.append(_fit_categories(column, config))
            elif column.dtype == pl.List(pl.String):
                frequent = _by_frequency(column.explode()).head(config.sequence_values)
                sequences.append(SequenceColumn(column.name, tuple(frequent)))
            elif column.dtype.is_numeric() and (fitted := _fit_number(column, counts)) is not None:
                numeric.append(fitted)
            else:
                ignored.append(column.name)
        return cls(tuple(numeric), tuple(categorical), tuple(ignored), tuple(sequences))

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
            column = _transformed(_column(frame, number.name), number.log)
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


def _is_category(column: pl.Series, context: Collection[str]) -> bool:
    if column.dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum):
        return True
    if not column.dtype.is_integer():
        return False
    return column.name in context or column.drop_nulls().n_unique() <= FEW_INTEGERS


def _fit_categories(column: pl.Series, config: FeaturesConfig) -> CategoricalColumn:
    values = _by_frequency(column)
    kept = tuple(values.head(config.categories))
    return CategoricalColumn(column.name, kept, config.hash_buckets if len(values) > len(kept) else 0)


def _by_frequency(values: pl.Series) -> pl.Series:
    """Return the distinct values, the most frequent first; ties by name."""
    counted = values.alias("value").drop_nulls().value_counts(name="count").cast({"value": pl.String})
    return counted.sort(["count", "value"], descending=[True, False])["value"]


def _fit_number(column: pl.Series, counts: Collection[str]) -> NumericColumn | None:
    smallest = column.min()
    never_negative = isinstance(smallest, int) and smallest >= 0
    log = column.name in counts or (column.dtype.is_integer() and never_negative)
    blocks = [column.slice(start, _BLOCK) for start in range(0, len(column), _BLOCK)]
    sums, extremes, count = 0.0, set[float](), 0
    for block in blocks:
        known = _known(block, log)
        count += len(known)
        sums += float(known.sum())
        extremes |= {float(known.min()), float(known.max())} if len(known) else set()
    indicator = count < len(column)
    if not count or (len(extremes) == 1 and not indicator):
        return None
    mean = sums / count
    std = float(np.sqrt(sum(float(np.square(_known(block, log) - mean).sum()) for block in blocks) / count))
    return NumericColumn(column.name, log, mean, std if std > 1e-12 else 1.0, indicator)


def _known(block: pl.Series, log: bool) -> npt.NDArray[np.float64]:
    return _transformed(block, log).drop_nulls().to_numpy()


def _transformed(column: pl.Series, log: bool) -> pl.Series:
    values = column.cast(pl.Float64)
    values = values.set(~values.is_finite(), None)
    return values.clip(lower_bound=0).log1p() if log else values


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
