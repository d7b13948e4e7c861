from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from kgrec.data.rdf import read_rdf
from tests.data.fuzzing import KINDS, drawn, fuzz, ingested


def test_mutated_documents_are_read_or_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    found = fuzz(tmp_path / "fuzzed", 16 * len(KINDS), seed=0)
    total = sum(found.values(), Counter[str]())
    assert total["refused"] > 15, "the mutations must hurt"
    assert total["read"] + total["read in part"] > 15, "and not all of them"


def test_what_is_not_accounted_for_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b'<http://a> <http://b> <http://c> .\n<http://a> <http://b> "d" .\n'
    assert ingested(tmp_path / "good", "a.nt", text) == "read"
    lost = read_rdf(tmp_path / "good" / "a.nt", "a.nt")
    monkeypatch.setattr("kgrec.data.triples.read_rdf", lambda *_: replace(lost, attributes=lost.attributes.clear()))
    with pytest.raises(AssertionError):
        ingested(tmp_path / "lost", "a.nt", text)


@pytest.mark.parametrize(("seed", "number"), [(1, 608), (1, 674), (2, 2074)])
def test_documents_that_once_failed(tmp_path: Path, seed: int, number: int) -> None:
    kind, data = drawn(number, seed)
    ingested(tmp_path / "fuzzed", f"a.{kind}", data)
