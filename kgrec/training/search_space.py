"""What a search may try: an axis for each setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Value = bool | int | float | str


def rounded(value: Value) -> Value:
    """Return a number with four digits, so that what was tried can be typed again.

    >>> rounded(0.058141575160187725)
    0.05814
    """
    return float(f"{value:.4g}") if isinstance(value, float) else value


class Axis(BaseModel):
    """One setting's values: `choices`, or numbers from `low` to `high`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choices: tuple[Value, ...] | None = Field(default=None, min_length=1, description="the values to try")
    low: float | None = Field(default=None, description="the least value")
    high: float | None = Field(default=None, description="the greatest value, > low")
    log: bool = Field(default=False, description="draw evenly by order of magnitude, low > 0")
    whole: bool = Field(default=False, description="whole numbers alone")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        ends = (self.low, self.high)
        if (self.choices is None) == (ends == (None, None)):
            raise ValueError("give choices = [...], or low and high")
        if self.choices is None and (self.low is None or self.high is None or self.low >= self.high):
            raise ValueError("low and high are both needed, low below high")
        if self.log and (self.low is None or self.low <= 0):
            raise ValueError("log needs a low above 0")
        return self

    def values_at_the_border(self) -> tuple[Value, ...]:
        """Return every choice, or the least and the greatest value."""
        if self.choices is not None:
            return self.choices
        return tuple(int(end) if self.whole else end for end in (self.low, self.high) if end is not None)

    def suggest(self, trial: Any, name: str) -> Value:
        """Return the value that an optuna trial is to have on this axis."""
        if self.choices is not None:
            chosen: Value = trial.suggest_categorical(name, self.choices)
            return chosen
        if self.low is None or self.high is None:
            raise ValueError("an axis without ends was not validated")
        if self.whole:
            return int(trial.suggest_int(name, int(self.low), int(self.high), log=self.log))
        return rounded(float(trial.suggest_float(name, self.low, self.high, log=self.log)))


DEFAULT_SPACE: Final[Mapping[str, Axis]] = {
    "training.learning_rate": Axis(low=0.003, high=0.06, log=True),
    "losses.temperature": Axis(low=0.08, high=0.4, log=True),
    "model.layers": Axis(choices=(1, 2, 3)),
    "model.id_dropout": Axis(choices=(0.0, 0.1, 0.2, 0.3)),
    "model.graph_weight": Axis(choices=(0.0, 0.25, 0.5, 1.0)),
}


class SearchConfig(BaseModel):
    """What `kgrec search` tries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int = Field(
        default=20, ge=1, description="trials in all, those of earlier searches of the same study included"
    )
    space: dict[str, Axis] = Field(
        default=dict(DEFAULT_SPACE),
        min_length=1,
        description="settings by dotted key, of [model], [training], [losses], [blocks] and [features]",
    )
