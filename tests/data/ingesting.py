"""A small ingest to test with: inputs are written into a folder, and one call ingests them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from kgrec.data.ingest import ingest
from kgrec.data.interactions import InteractionsConfig
from kgrec.data.knowledge import KnowledgeConfig
from kgrec.data.partitions import ParseAll, parse_in_turn
from kgrec.data.side_tables import ItemsConfig, UsersConfig

NOW = datetime(2024, 6, 1, tzinfo=UTC)
CLICKS = "user,item,event,timestamp\na,x,click,1700000000\nb,y,click,1700000001\na,y,purchase,1700000002\n"


def run(
    base: Path,
    interactions: Mapping[str, Any] | None = None,
    users: Mapping[str, Any] | None = None,
    items: Mapping[str, Any] | None = None,
    knowledge: Mapping[str, Any] | None = None,
    *,
    split_column: str | None = None,
    out: str = "out",
    scratch: str = "scratch",
    parse_all: ParseAll = parse_in_turn,
) -> dict[str, Any]:
    """Ingest what lies in `base`; tables go to base/out, refused rows to base/refused.parquet."""
    return ingest(
        None if interactions is None else InteractionsConfig.model_validate(interactions),
        None if users is None else UsersConfig.model_validate(users),
        None if items is None else ItemsConfig.model_validate(items),
        None if knowledge is None else KnowledgeConfig.model_validate(knowledge),
        base=base, out=base / out, quarantine=base / "refused.parquet", scratch=base / scratch, now=NOW,
        split_column=split_column, progress=lambda _: None, parse_all=parse_all,
    )  # fmt: skip


def table(base: Path, name: str) -> pl.DataFrame:
    """Read a canonical table that `run` wrote."""
    return pl.read_parquet(base / "out" / f"{name}.parquet")
