from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from kgrec import columns as c
from kgrec.artifacts import Artifact, ArtifactStore
from kgrec.errors import InputError
from kgrec.serving import filters as module
from kgrec.serving.filters import ItemFilter
from kgrec.serving.score import ITEM_FEATURES
from tests.serving.small_version import ITEMS, make_version

FEATURES = {"year": [1990, 1995, 2000, None, 1995, 1980, 1990], "price": [1.5, 2.0, 3.0, 4.0, None, 6.0, 7.0],
            "colour": ["red", "blue", "red", "1", None, "blue", "red"],
            "tags": [["x", "y"], ["y"], [], None, ["z"], ["x"], ["y"]]}  # fmt: skip


@pytest.fixture(scope="module")
def item_filter(tmp_path_factory):
    store = ArtifactStore(tmp_path_factory.mktemp("artifacts"))
    version = make_version(store)

    def make(out):
        for name in version.files:
            (out / name).write_bytes(version.file(name).read_bytes())
        rows = pl.Series(c.ITEM_ROW, range(7), dtype=c.ROW_TYPE)
        pl.DataFrame(FEATURES).with_columns(rows).write_parquet(out / ITEM_FEATURES)
        return version.facts

    artifact: Artifact = store.build("version", {"with": "features"}, {}, make)[0]
    return ItemFilter(artifact, len(ITEMS))


@pytest.mark.parametrize(
    ("conditions", "through"),
    [
        ({}, "a b c d e f gone"),
        ({"year": 1995}, "b e"),
        ({"year": "1995"}, "b e"),
        ({"year": 1995.0}, "b e"),
        ({"year": [1990, "2000"]}, "a c gone"),
        ({"year": []}, ""),
        ({"year": {"min": 1990, "max": 1995}}, "a b e gone"),
        ({"year": {"min": 1995}}, "b c e"),
        ({"year": {"max": 1990}}, "a f gone"),
        ({"year": {"min": None, "max": None}}, "a b c e f gone"),
        ({"price": 2}, "b"),
        ({"price": 1.5}, "a"),
        ({"colour": "red", "year": {"max": 1999}}, "a gone"),
        ({"colour": True}, ""),
        ({"colour": {"min": 0}}, "d"),
        ({"tags": "y"}, "a b gone"),
        ({"genre": "Comedy"}, "a f"),
        ({"film.film.genre": "comedy", "directed_by": "m.0x"}, "f"),
    ],
)
def test_what_a_condition_lets_through(item_filter, conditions, through):
    flags = item_filter.flags(conditions)
    assert [ITEMS[row] for row in np.flatnonzero(flags)] == through.split()


def test_every_unknown_attribute_is_named_with_the_nearest(item_filter):
    with pytest.raises(InputError) as error:
        item_filter.flags({"yaer": 1, "colour": "red", "zzzzzz": 2, c.ITEM_ROW: 3})
    remedies = [problem.remedy for problem in error.value.problems]
    assert remedies[0] == "did you mean year?"
    assert "known here: colour, directed_by, film.film.genre, genre, price, tags, year" in remedies[1]
    assert len(remedies) == 3


def test_flags_are_kept_and_only_so_many(item_filter, monkeypatch):
    monkeypatch.setattr(module, "_KEPT", 3)
    item_filter._flags.clear()
    first = item_filter.flags({"year": 1})
    assert item_filter.flags({"year": 1}) is first
    for year in range(2, 9):
        item_filter.flags({"year": year})
    assert len(item_filter._flags) == 3
    assert item_filter.flags({"year": 1}) is not first
