"""Features made of other features: a ratio, a difference or a product of two columns, row by row.

A derived feature is computed from finished columns, so what was known when is decided by these, and the same
declaration serves training rows and requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import polars as pl


class How(StrEnum):
    """What is made of two columns."""

    RATIO = "ratio"
    DIFFERENCE = "difference"
    PRODUCT = "product"


FORMULAS: Final[Mapping[How, Callable[[pl.Expr, pl.Expr], pl.Expr]]] = MappingProxyType(
    {
        How.RATIO: lambda a, b: pl.when(b != 0).then(a / b),
        How.DIFFERENCE: lambda a, b: a - b,
        How.PRODUCT: lambda a, b: a * b,
    }
)
"""Each formula; null where an input is, and a ratio where it would divide by 0."""


@dataclass(frozen=True)
class Derived:
    """A column made of two others, `view__feature` or derived themselves.

    >>> trend = Derived("item_trend", How.RATIO, ("day__click_rate", "item__click_rate"), "On the rise?", "ranking")
    >>> frame = pl.DataFrame({"day__click_rate": [0.4, 0.2], "item__click_rate": [0.2, 0.0]})
    >>> compute_derived(frame, [trend])["item_trend"].to_list()
    [2.0, None]
    """

    name: str
    how: How
    inputs: tuple[str, str]
    description: str
    owner: str

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description from which `from_dict` makes an equal declaration."""
        return {"name": self.name, "how": self.how.value, "inputs": list(self.inputs), "description": self.description,
                "owner": self.owner}  # fmt: skip

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Derived:
        """Read what `to_dict` wrote."""
        left, right = raw["inputs"]
        return cls(raw["name"], How(raw["how"]), (left, right), raw["description"], raw["owner"])


def compute_derived(frame: pl.DataFrame, derived: Sequence[Derived]) -> pl.DataFrame:
    """Return the frame with the derived columns (Float32) added, in an order in which inputs come first."""
    for feature in in_order(derived, frame.columns)[0]:
        left, right = (pl.col(name).cast(pl.Float32) for name in feature.inputs)
        frame = frame.with_columns(FORMULAS[feature.how](left, right).cast(pl.Float32).alias(feature.name))
    return frame


def in_order(derived: Iterable[Derived], columns: Iterable[str]) -> tuple[list[Derived], list[Derived]]:
    """Return the derived features so that inputs come first, and those that cannot be made of these columns."""
    known, waiting, ordered = set(columns), list(derived), []
    while ready := [feature for feature in waiting if known.issuperset(feature.inputs)]:
        ordered += ready
        known |= {feature.name for feature in ready}
        waiting = [feature for feature in waiting if feature not in ready]
    return ordered, waiting
