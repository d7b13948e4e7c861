"""Side tables: users and items with their features, and items with their titles."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import polars as pl
from pydantic import Field, model_validator

from kgrec.columns import ITEM, TITLE, USER
from kgrec.data.checks import Fault, Findings, Tolerance, sift
from kgrec.data.sources import TableSource, materialise
from kgrec.data.values import check_ids, find_column, id_text

_FEATURES: Final = "columns that models may read as features, kept in their own type"


class UsersConfig(TableSource):
    """A table of users, one row each."""

    id: str = Field(USER, description="column of user ids")
    features: tuple[str, ...] = Field((), description=_FEATURES)
    tolerated: float = Field(0.0, ge=0.0, le=1.0, description="share of the rows that may be bad and left out, 0-1")

    @model_validator(mode="after")
    def _names_are_free(self) -> UsersConfig:
        if USER in self.features or len(set(self.features)) < len(self.features):
            raise ValueError("features must differ from each other and from `user`")
        return self


class ItemsConfig(TableSource):
    """A table of items, one row each."""

    id: str = Field(ITEM, description="column of item ids")
    title: str | None = Field(None, description="column of names for people; default: title where there is one")
    features: tuple[str, ...] = Field((), description=_FEATURES)
    tolerated: float = Field(0.0, ge=0.0, le=1.0, description="share of the rows that may be bad and left out, 0-1")

    @model_validator(mode="after")
    def _names_are_free(self) -> ItemsConfig:
        if {ITEM, TITLE} & set(self.features) or len(set(self.features)) < len(self.features):
            raise ValueError("features must differ from each other and from `item` and `title`")
        return self


def read_users(config: UsersConfig, base: Path, scratch: Path, findings: Findings) -> pl.LazyFrame | None:
    """Read the users: `user`, then features. None when faults were found; InputError when it cannot be read."""
    return _read("users", USER, config, None, base, scratch, findings)


def read_items(config: ItemsConfig, base: Path, scratch: Path, findings: Findings) -> pl.LazyFrame | None:
    """Read the items: `item`, `title` (null where none), features. None when faults were found."""
    return _read("items", ITEM, config, config.title, base, scratch, findings)


def _read(
    name: str,
    key: str,
    config: UsersConfig | ItemsConfig,
    title: str | None,
    base: Path,
    scratch: Path,
    findings: Findings,
) -> pl.LazyFrame | None:
    table = materialise(config, base, scratch)
    before = len(findings.problems)
    id_column = find_column(table, f"{name}.id", config.id, [], findings)
    for feature in config.features:
        find_column(table, f"{name}.features", feature, [], findings)
    if key == ITEM:
        title = find_column(table, f"{name}.title", title, [TITLE], findings)
    if not check_ids(table, [id_column], findings) or len(findings.problems) > before or id_column is None:
        return None
    identity = id_text(id_column, table.schema()[id_column])
    values = {key: identity}
    if key == ITEM:
        values[TITLE] = _text(title)
    values |= {feature: pl.col(feature) for feature in config.features}
    faults = [Fault(f"blank {key} id", pl.col(key).is_null(), f"give every row an id in the column {id_column!r}")]
    sifted = sift(
        name, table, values, faults, findings, Tolerance(config.tolerated, f"{name}.tolerated"),
        alike=pl.struct(identity), alike_reason=f"repeated {key} id",
    )  # fmt: skip
    return sifted.frame.select(*values) if len(findings.problems) == before else None


def _text(column: str | None) -> pl.Expr:
    if column is None:
        return pl.lit(None, pl.String)
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)
