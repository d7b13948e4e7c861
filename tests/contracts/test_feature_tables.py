"""What every backend of feature tables must do; the list is read from the registry."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from kgrec.columns import PART_TYPE
from kgrec.errors import ArtifactError, InputError
from kgrec.features import backends, tables
from kgrec.features.backends import BACKENDS, BackendName
from kgrec.features.tables import FeatureTable

DAY = timedelta(days=1)
NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)


@pytest.fixture(params=list(BackendName))
def table(request: pytest.FixtureRequest, tmp_path: Path) -> FeatureTable:
    if request.param is BackendName.DELTA:
        pytest.importorskip("deltalake")
    return BACKENDS[request.param](tmp_path / "shop")


def rows(count: int = 4, value: float = 0.5) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user": [f"u{n % 2}" for n in range(count)], "item": [str(n) for n in range(count)],
            "time": [NOW - n * DAY for n in range(count)], "part": ["train"] * (count - 1) + ["test"],
            "click": [True, None, False, True][:count], "item__click_rate": [value, None, 0.25, 1.0][:count],
            "last": [["a", "b"], [], None, ["c"]][:count], "n": list(range(count)),
        },
        schema_overrides={"part": PART_TYPE, "item__click_rate": pl.Float32, "last": pl.List(pl.String),
                          "n": pl.UInt32, "time": pl.Datetime("us", "UTC")},
    )  # fmt: skip


def test_every_backend_is_in_the_registry() -> None:
    assert set(BACKENDS) == set(BackendName)
    assert set(BACKENDS.values()) == set(FeatureTable.__subclasses__())


def test_what_was_written_is_read_again_in_its_order_also_after_newer_versions(table: FeatureTable) -> None:
    first = table.write(rows(), NOW)
    wider = rows(3, 0.75).with_columns(pl.Series("more", ["x", "y", None]))
    second = table.write(wider, NOW + DAY)
    assert [(one.name, one.written, one.num_rows) for one in table.history()] == [
        (first, NOW, 4), (second, NOW + DAY, 3),
    ]  # fmt: skip
    expected = rows().with_columns(pl.col("part").cast(pl.String), pl.col("n").cast(pl.Int64))
    for again in (table, type(table)(table.root)):
        assert again.read(first).equals(expected)
        assert again.read(first).schema == expected.schema
        assert again.read()["more"].to_list() == ["x", "y", None]


def test_time_travel_reads_what_was_the_latest_then(table: FeatureTable) -> None:
    table.write(rows(4, 0.1), NOW)
    table.write(rows(4, 0.2), NOW + 2 * DAY)
    seen = [table.read(at=NOW + n * DAY)["item__click_rate"][0] for n in (0, 1, 2, 5)]
    assert seen == pytest.approx([0.1, 0.1, 0.2, 0.2])
    with pytest.raises(ArtifactError, match="nothing was written by then"):
        table.read(at=NOW - DAY)


def test_equal_content_has_one_name_and_is_not_written_twice(table: FeatureTable) -> None:
    first = table.write(rows(), NOW)
    assert table.write(rows(), NOW + DAY) == first
    assert len(table.history()) == 1
    other = table.write(rows(4, 0.9), NOW + DAY)
    assert table.write(rows(), NOW + 2 * DAY) == first  # back to what it was: the latest is the first content again
    assert [one.name for one in table.history()] == [first, other, first]
    assert table.read()["item__click_rate"][0] == 0.5


def test_rows_in_pieces_are_the_same_version_and_each_piece_is_read_alone(
    table: FeatureTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "PIECE", 3)
    whole = pl.concat([rows(4, value) for value in (0.1, 0.2)])
    read: list[int] = []
    pieces = [
        whole[start : start + 3].lazy().map_batches(lambda piece: read.append(piece.height) or piece)
        for start in range(0, 8, 3)
    ]
    name = table.write(pieces, NOW)
    assert read[:3] == [3, 3, 2]
    assert table.write(whole, NOW + DAY) == name
    assert table.write(whole.lazy(), NOW + DAY) == name
    assert [one.num_rows for one in table.history()] == [8]
    assert table.read().equals(whole.with_columns(pl.col("part").cast(pl.String), pl.col("n").cast(pl.Int64)))


def test_all_backends_give_a_content_the_same_name_and_the_same_rows(tmp_path: Path) -> None:
    pytest.importorskip("deltalake")
    every = [member(tmp_path / name) for name, member in BACKENDS.items()]
    assert len({table.write(rows()) for table in every}) == 1
    assert all(table.read().equals(every[0].read()) for table in every)


def test_a_person_is_forgotten_in_every_version_and_the_names_stay(table: FeatureTable) -> None:
    names = [table.write(rows(4, value), NOW + n * DAY) for n, value in enumerate((0.1, 0.2))]
    assert table.holds("u1")
    assert not table.holds("u7")
    table.forget("u1")
    assert [one.name for one in table.history()] == names
    for name in names:
        assert table.read(name)["user"].to_list() == ["u0", "u0"]
    for path in table.root.rglob("*.parquet"):  # nothing of it is left on disk either
        assert "u1" not in pl.read_parquet(path)["user"].to_list()
    assert not table.holds("u1")


def test_dropped_versions_are_gone_and_the_others_read_as_before(table: FeatureTable) -> None:
    names = [table.write(rows(4, value), NOW + n * DAY) for n, value in enumerate((0.1, 0.2, 0.3))]
    stay, before = table.history()[1:], [table.read(name) for name in names[1:]]
    assert table.num_bytes(names[0]) > 0
    table.drop([])
    assert len(table.history()) == 3
    table.drop([names[0]])
    assert table.history() == stay
    assert all(table.read(name).equals(each) for name, each in zip(names[1:], before, strict=True))
    assert len(list(table.root.glob("*.parquet"))) == 2, "its file is gone, too"
    with pytest.raises(ArtifactError, match="no version"):
        table.read(names[0])
    with pytest.raises(ValueError, match="stays"):
        table.drop(names[2:])


def test_a_rewriting_that_was_killed_half_way_loses_nothing(table: FeatureTable) -> None:
    name = table.write(rows(), NOW)
    table.root.rename(table.root.with_name(f".{table.root.name}.former"))
    assert type(table)(table.root).read(name).height == 4


def test_unknown_versions_and_damaged_files_are_refused(table: FeatureTable) -> None:
    with pytest.raises(ArtifactError, match="versions: none"):
        table.read()
    name = table.write(rows())
    with pytest.raises(ArtifactError, match=name):
        table.read("never")
    file = next(table.root.glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ArtifactError):
        table.read(name)


def test_delta_keeps_its_log_for_years(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    table = BACKENDS[BackendName.DELTA](tmp_path / "shop")
    table.write(rows())
    told = deltalake.DeltaTable(table.root).metadata().configuration
    assert told["delta.logRetentionDuration"] == "interval 36500 days"
    assert told["delta.deletedFileRetentionDuration"] == "interval 36500 days"


def test_parquet_versions_are_plain_files(tmp_path: Path) -> None:
    table = BACKENDS[BackendName.PARQUET](tmp_path / "shop")
    name = table.write(rows())
    assert pl.read_parquet(tmp_path / "shop" / f"{name}.parquet").height == 4
    assert json.loads((tmp_path / "shop" / "history.json").read_text())[0]["version"] == name


def test_delta_without_its_package_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "deltalake", None)
    with pytest.raises(InputError, match=r"kgrec\[delta\]"):
        BACKENDS[BackendName.DELTA](tmp_path)
