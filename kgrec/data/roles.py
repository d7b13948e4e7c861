"""What the columns and events of a log mean: the keys under [interactions]."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from kgrec.columns import CLICK, CONVERSION, EVENT, EVENTS_SCHEMA, IMPRESSION, PART
from kgrec.data.sources import TableSource

_FROZEN: Final = ConfigDict(frozen=True, extra="forbid")


class ColumnNames(BaseModel):
    """Which source column is which; unset ones take the default name where the log has it."""

    model_config = _FROZEN

    user: str | None = Field(None, description="column of user ids; default: user")
    item: str | None = Field(None, description="column of item ids; default: item")
    event: str | None = Field(
        None, description="column of event names; default: event, without one each row is a click"
    )
    time: str | None = Field(
        None,
        description="column of instants: s, ms, us or ns since 1970, ISO 8601, dates or datetimes (naive = UTC); "
        "default: timestamp, else time",
    )
    value: str | None = Field(None, description="column of numbers that thresholds look at; default: value")


class EventRole(BaseModel):
    """An event name, and the value from which it counts."""

    model_config = _FROZEN

    event: str = Field(description="event name as in the event column; upper and lower case are the same")
    at_least: float | None = Field(None, description="smallest value that counts, any finite number; unset: all count")

    def folded(self) -> str:
        """Return the name as it is compared."""
        return self.event.strip().lower()


def _as_role(entry: Any) -> Any:
    return {"event": entry} if isinstance(entry, str) else entry


RoleEntry = Annotated[EventRole, BeforeValidator(_as_role)]


class EventRoles(BaseModel):
    """Which events mean what, for layout "events"; an entry is a name or {event=..., at_least=...}."""

    model_config = _FROZEN

    impression: tuple[RoleEntry, ...] | None = Field(
        None, description="events that show an item; default: impression, exposure, show"
    )
    click: tuple[RoleEntry, ...] | None = Field(
        None, description="events of interest; default: click, view, rating, play, listen, watch, read, like"
    )
    conversion: tuple[RoleEntry, ...] | None = Field(
        None, description="events of value; default: purchase, buy, order, conversion, and rating from 4.0"
    )

    def entries(self, role: str) -> tuple[EventRole, ...]:
        """Return what `role` (impression, click or conversion) is made of, defaults filled in."""
        asked: tuple[EventRole, ...] | None = getattr(self, role)
        return _DEFAULT_ROLES[role] if asked is None else asked


_DEFAULT_ROLES: Final[dict[str, tuple[EventRole, ...]]] = {
    IMPRESSION: tuple(EventRole(event=name) for name in ("impression", "exposure", "show")),
    CLICK: tuple(
        EventRole(event=name) for name in ("click", "view", "rating", "play", "listen", "watch", "read", "like")
    ),
    CONVERSION: (
        *(EventRole(event=name) for name in ("purchase", "buy", "order", "conversion")),
        EventRole(event="rating", at_least=4.0),
    ),
}


class LabelColumns(BaseModel):
    """Which 0/1 columns are which label, for layout "impressions"."""

    model_config = _FROZEN

    click: str | None = Field(None, description="0/1 column that says whether the item was clicked")
    conversion: str | None = Field(None, description="0/1 column that says whether the item was converted")


class InteractionsConfig(TableSource):
    """The interaction log."""

    layout: Literal["events", "impressions"] = Field(
        "events", description='"events": a row is one event; "impressions": a row is one exposure with label columns'
    )
    columns: ColumnNames = Field(default_factory=ColumnNames, description="which source column is which")
    context: tuple[str, ...] = Field(
        (), description="request-time columns that the click and conversion towers may read"
    )
    random: str | None = Field(
        None,
        description="0/1 column that says which rows were shown at random: the towers are judged on those of test once "
        "more; never a feature",
    )
    roles: EventRoles = Field(
        default_factory=EventRoles, description='layout "events": which events mean what; others are left out, counted'
    )
    labels: LabelColumns | None = Field(
        None, description='layout "impressions": which 0/1 column is which label; default: click and conversion'
    )
    tolerated: float = Field(0.0, ge=0.0, le=1.0, description="share of the rows that may be bad and left out, 0-1")

    @model_validator(mode="after")
    def _context_names_are_free(self) -> InteractionsConfig:
        taken = sorted(set(self.context) & {*EVENTS_SCHEMA, PART, IMPRESSION, EVENT})
        if taken or len(set(self.context)) < len(self.context):
            raise ValueError(f"context columns must differ from each other and from kgrec's own: {taken}")
        return self

    @model_validator(mode="after")
    def _keys_fit_the_layout(self) -> InteractionsConfig:
        if self.layout == "events" and self.labels is not None:
            raise ValueError('labels go with layout = "impressions"')
        if self.layout == "impressions" and self.roles != EventRoles():
            raise ValueError('roles go with layout = "events"')
        return self


def holds(entries: tuple[EventRole, ...], event: pl.Expr, value: pl.Expr) -> pl.Expr:
    """Return where an event, as `folded` gives it, with its value counts for one of the entries; never null."""
    plain = [entry.folded() for entry in entries if entry.at_least is None]
    any_of = event.is_in(plain) if plain else pl.lit(False)
    for entry in entries:
        if entry.at_least is not None:
            any_of = any_of | ((event == entry.folded()) & (value >= entry.at_least))
    return any_of.fill_null(False)


def named(entries: tuple[EventRole, ...], event: pl.Expr) -> pl.Expr:
    """Return where an event, as `folded` gives it, is named by one of the entries; never null."""
    names = sorted({entry.folded() for entry in entries})
    return event.is_in(names).fill_null(False) if names else pl.lit(False)


def folded(event: pl.Expr) -> pl.Expr:
    """Return event names as they are compared: stripped, in lower case."""
    return event.cast(pl.String).str.strip_chars().str.to_lowercase()
