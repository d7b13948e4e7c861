"""What a baseline is: what it may learn from, what it tries, and what it gives back.

Shapes: U users, I items, B lists, N pairs of the train part, X links of items to nodes of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from kgrec.errors import KgrecError
from kgrec.evaluation.pairs import Pairs

Setting = Mapping[str, float]


class BaselinesConfig(BaseModel):
    """What the baselines try on validation: [baselines]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    neighbours: tuple[int, ...] = Field(
        (20, 50, 100, 200, 400), min_length=1, description="item_knn: neighbours kept per item to try, each 1 or more."
    )
    shrinkage: tuple[float, ...] = Field(
        (0.0, 10.0), min_length=1, description="item_knn: added to the cosine's divisor, in users, each 0 or more."
    )
    ease_lambda: tuple[float, ...] = Field(
        (1.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0),
        min_length=1,
        description="ease: ridge penalties to try, in users, each above 0.",
    )
    ease_max_items: int = Field(
        8_000, ge=1, description="ease is left out of larger catalogues: it inverts an items x items matrix."
    )
    ials_factors: int = Field(
        64, ge=1, description="ials: dimensions of its vectors, at most half the smaller side of the log."
    )
    ials_regularisation: tuple[float, ...] = Field(
        (1.0, 10.0, 100.0), min_length=1, description="ials: ridge penalties to try, each above 0."
    )
    ials_alpha: tuple[float, ...] = Field(
        (1.0, 10.0), min_length=1, description="ials: confidences of an event to try, above that of none, each above 0."
    )
    filter_exponents: tuple[float, ...] = Field(
        (0.2, 0.35, 0.5, 0.65, 0.8, 1.0),
        min_length=1,
        description="linear_filter: exponents of the degrees to try, in [0, 1].",
    )
    half_lives: tuple[float, ...] = Field(
        (0.0, 1.0, 7.0, 30.0, 90.0),
        min_length=1,
        description="popularity: days after which an event counts half, to try where there is time; 0 = all alike.",
    )
    hub_exponents: tuple[float, ...] = Field(
        (0.0, 0.5, 1.0), min_length=1, description="graph_kernel: powers of a shared node's degree to try, >= 0."
    )
    kernel_popularity: tuple[float, ...] = Field(
        (0.0, 0.1, 0.3, 1.0, 3.0),
        min_length=1,
        description="graph_kernel: weights of log popularity (0 to 1) to try beside the kernel, >= 0.",
    )
    tuning_users: int = Field(
        5_000,
        ge=1,
        description="users of validation that choose a setting, at most; evenly taken where there are more.",
    )


@dataclass(frozen=True)
class Known:
    """What a baseline may learn from: the train part, nothing later.

    age_N: days from each pair's last event to the end of train, beside train_UI.indices; None without time.
    item_node_X2: each item row with a node that it shares an edge of the train graph with; None without a graph.
    repeats: whether an item that a user had before may be recommended again.
    """

    train_UI: Pairs
    age_N: Tensor | None = None
    item_node_X2: Tensor | None = None
    repeats: bool = False


class Scorer(Protocol):
    """A fitted baseline: scores every item for any history, also of a user it never saw."""

    def __call__(self, history_BI: Pairs) -> Tensor:
        """Return float scores_BI; higher is better."""


class Baseline(Protocol):
    """A baseline over one training matrix; work that all settings share is done once, when it is made."""

    def settings(self) -> list[Setting]:
        """Return the settings to try, in a fixed order."""

    def fit(self, setting: Setting) -> Scorer:
        """Return the scorer for one setting."""


class LeftOutError(KgrecError):
    """A baseline cannot run on this data; the message says why."""
