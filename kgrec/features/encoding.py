"""Feature columns as numbers for a model: fitted on train rows only, saved as JSON, never as code.

A column is categorical when it is text, boolean, declared context of a discrete type, or whole numbers with few
distinct train values; every other number is numeric. Categories are counted from 1 by falling frequency in
train; 0 is unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from kgrec.errors import ArtifactError

MAX_CATEGORIES = 1000
FEW_INTEGERS = 50
MISSING = ":missing"


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
    """`values[i]` (as text) is category i + 1; anything else, null too, is 0."""

    name: str
    values: tuple[str, ...]

    @property
    def cardinality(self) -> int:
        """How many codes there are, the unknown included."""
        return len(self.values) + 1


@dataclass(frozen=True)
class FeatureEncoder:
    """Turns the feature rows of `build_features` or `look_up` into arrays. `ignored`: columns it cannot use."""

    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoricalColumn, ...]
    ignored: tuple[str, ...] = ()

    @classmethod
    def fit(cls, train: pl.DataFrame, *, context: Collection[str] = (), counts: Collection[str] = ()) -> FeatureEncoder:
        """Return the encoder of these train rows (hand in no other rows).

        context: declared request-time columns. counts: columns to be read through log1p besides whole numbers that are
        never negative. Columns of other types (times, lists) and numbers that never vary are ignored.
        """
        numeric, categorical, ignored = [], [], []
        for column in train:
            if _is_category(column, context):
                categorical.append(_fit_categories(column))
            elif column.dtype.is_numeric() and (fitted := _fit_number(column, counts)) is not None:
                numeric.append(fitted)
            else:
                ignored.append(column.name)
        return cls(tuple(numeric), tuple(categorical), tuple(ignored))

    @property
    def numeric_names(self) -> tuple[str, ...]:
        """The names of the numeric columns of `encode`, missing indicators included."""
        return tuple(
            name
            for column in self.numeric
            for name in ([column.name, column.name + MISSING] if column.indicator else [column.name])
        )

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
        values_FN: list[npt.NDArray[np.float32]] = []
        for number in self.numeric:
            column = _transformed(_column(frame, number.name), number.log)
            scaled = ((column - number.mean) / number.std).fill_null(0.0)
            values_FN.append(scaled.to_numpy().astype(np.float32))
            if number.indicator:
                values_FN.append(column.is_null().to_numpy().astype(np.float32))
        codes_CN = [_codes(_column(frame, category.name), category) for category in self.categorical]
        numeric_NF = np.stack(values_FN, axis=1) if values_FN else np.zeros((frame.height, 0), np.float32)
        categorical_NC = np.stack(codes_CN, axis=1) if codes_CN else np.zeros((frame.height, 0), np.int64)
        return numeric_NF, categorical_NC

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description from which `from_dict` makes an equal encoder."""
        return {
            "numeric": [asdict(column) for column in self.numeric],
            "categorical": [{"name": column.name, "values": list(column.values)} for column in self.categorical],
            "ignored": list(self.ignored),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> FeatureEncoder:
        """Read what `to_dict` wrote; ArtifactError when keys are missing or others."""
        try:
            return cls(
                tuple(NumericColumn(**column) for column in raw["numeric"]),
                tuple(CategoricalColumn(column["name"], tuple(column["values"])) for column in raw["categorical"]),
                tuple(raw["ignored"]),
            )
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"no feature encoder: {error}") from None


def _is_category(column: pl.Series, context: Collection[str]) -> bool:
    if column.dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum):
        return True
    if not column.dtype.is_integer():
        return False
    return column.name in context or column.drop_nulls().n_unique() <= FEW_INTEGERS


def _fit_categories(column: pl.Series) -> CategoricalColumn:
    counted = column.cast(pl.String).alias("value").drop_nulls().value_counts(name="count")
    kept = counted.sort(["count", "value"], descending=[True, False]).head(MAX_CATEGORIES)
    return CategoricalColumn(column.name, tuple(kept["value"]))


def _fit_number(column: pl.Series, counts: Collection[str]) -> NumericColumn | None:
    smallest = column.min()
    never_negative = isinstance(smallest, int) and smallest >= 0
    log = column.name in counts or (column.dtype.is_integer() and never_negative)
    values = _transformed(column, log)
    known = values.drop_nulls().to_numpy()
    indicator = bool(values.null_count())
    if not len(known) or (known.min() == known.max() and not indicator):
        return None
    std = float(known.std())
    return NumericColumn(column.name, log, float(known.mean()), std if std > 1e-12 else 1.0, indicator)


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
        {"value": pl.Series(category.values, dtype=pl.String), "code": np.arange(1, category.cardinality)}
    )
    asked = column.cast(pl.String).alias("value").to_frame()
    codes = asked.join(known, on="value", how="left", maintain_order="left")["code"].fill_null(0)
    return codes.to_numpy().astype(np.int64)
