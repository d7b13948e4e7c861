"""How a version knows a user, and what an answer to them rests on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kgrec.serving.index import Floats, Rows


class Standing(StrEnum):
    """What an answer to a user rests on."""

    TRAINED = "trained"
    HISTORY = "history"
    POPULARITY = "popularity"


@dataclass(frozen=True)
class Asked:
    """A user as the version knows them. vector_D is None where only popularity is left.

    history_H: item rows the user had, oldest first. seen: those that must not be among the answers.
    """

    standing: Standing
    vector_D: Floats | None
    history_H: Rows
    seen: Rows
