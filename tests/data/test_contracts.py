from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from kgrec.columns import TRIPLES_SCHEMA
from kgrec.data import contracts
from kgrec.data.contracts import TriplesContract, write_table


def facts(*tails: str, item: bool = False) -> pl.LazyFrame:
    rows = [("h", "r", tail, "f", item, 1.0, None) for tail in tails]
    return pl.LazyFrame(rows, schema=TRIPLES_SCHEMA, orient="row")


def test_facts_are_written_in_their_order_and_counted(tmp_path: Path) -> None:
    both = pl.concat([facts("b", "a"), facts("a", item=True)])
    assert write_table(both, tmp_path / "t.parquet", TriplesContract) == 3
    assert pl.read_parquet(tmp_path / "t.parquet").equals(both.collect())


@pytest.mark.parametrize("alike", [False, True])
def test_a_fact_that_stands_twice_breaks_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alike: bool
) -> None:
    if alike:  # equal hashes are only a suspicion
        monkeypatch.setattr(contracts, "repeated", lambda hashes: hashes.head(1))
        assert write_table(facts("a", "b"), tmp_path / "t.parquet", TriplesContract) == 2
    with pytest.raises(pl.exceptions.ComputeError, match="each_once"):
        write_table(facts("a", "b", "a"), tmp_path / "t.parquet", TriplesContract)
