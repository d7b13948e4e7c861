from __future__ import annotations

import hashlib
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from kgrec.data import datasets
from kgrec.data.datasets import DATASETS, DemoDataset, DemoTable, cache_folder, demo_path, get_dataset
from kgrec.errors import InputError, KgrecError

LOG = b"user_id:token\titem_id:token\trating:float\r\n1\t10\t5\r\n2\t20\t3\r\n"
ITEMS = "item_id:token\ttitle:token_seq\n10\tAmélie\n20\tBabe\n".encode()
FILES = {"tiny.inter": LOG, "tiny.item": ITEMS}
TABLES = {"interactions.tsv": "user\titem\tvalue\tevent\n1\t10\t5\trating\n2\t20\t3\trating\n",
          "items.tsv": "item\ttitle\n10\tAmélie\n20\tBabe\n"}  # fmt: skip
HASHES = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in TABLES.items()}
TINY = DemoDataset(
    requirement="tiny-demo==1.0",
    folder="tiny_demo/data",
    files={name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()},
    tables={
        "interactions.tsv": DemoTable(
            "tiny.inter", ("user", "item", "value"), HASHES["interactions.tsv"], constants={"event": "rating"}
        ),
        "items.tsv": DemoTable("tiny.item", ("item", "title"), HASHES["items.tsv"]),
    },
    terms="Free for tests.",
)


def wheel_of(files, folder):
    path = folder / "tiny_demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"tiny_demo/data/{name}", content)
        archive.writestr("tiny_demo/__init__.py", "raise RuntimeError('never installed, never run')")
    return path


class Shop:
    """Stands for the package index: counts what it was asked for, and serves what it is given."""

    def __init__(self):
        self.files = dict(FILES)
        self.asked = []

    def download(self, requirement, scratch):
        self.asked.append(requirement)
        return wheel_of(self.files, scratch)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    shop = Shop()
    monkeypatch.setenv("KGREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(DATASETS, "tiny", TINY)
    monkeypatch.setattr(datasets, "_download", shop.download)
    get_dataset.cache_clear()
    yield shop
    get_dataset.cache_clear()


def again(told):
    """Ask as another process would."""
    get_dataset.cache_clear()
    return get_dataset("tiny", told.append)


def test_tables_get_plain_headers_and_constant_columns(shop, tmp_path):
    told = []
    folder = get_dataset("tiny", told.append)
    assert folder == tmp_path / "cache" / "tiny"
    assert {name: (folder / name).read_text(encoding="utf-8") for name in TABLES} == TABLES
    assert (folder / "tiny.inter").read_bytes() == LOG
    assert shop.asked == ["tiny-demo==1.0"]
    assert told == ["fetching tiny from the package tiny-demo==1.0", "Free for tests."]


def test_what_is_in_the_cache_is_not_fetched_again_and_the_terms_are_told_once(shop):
    again([])
    told = []
    again(told)
    assert len(shop.asked) == 1
    assert told == []


@pytest.mark.parametrize("name", ["tiny.inter", "items.tsv"])
@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_what_was_changed_in_the_cache_is_fetched_anew(shop, name, change):
    path = again([]) / name
    whole = path.read_bytes()
    path.unlink() if change == "deleted" else path.write_bytes(whole + b"x")
    again([])
    assert len(shop.asked) == 2
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", list(FILES))
def test_another_checksum_is_refused_by_the_files_name(shop, tmp_path, name):
    shop.files[name] += b"\n"
    with pytest.raises(KgrecError, match=rf"tiny-demo==1\.0: {name} has SHA-256 \w{{12}}\.\.\., expected") as error:
        get_dataset("tiny", lambda text: None)
    assert "remedy" in str(error.value)
    assert not (tmp_path / "cache" / "tiny" / name).exists()
    shop.files = dict(FILES)
    assert (get_dataset("tiny", lambda text: None) / name).read_bytes() == FILES[name]


def test_a_table_that_is_not_the_known_one_is_refused_and_not_fetched_for_ever(shop, monkeypatch):
    other = DemoTable("tiny.item", ("item", "name"), HASHES["items.tsv"])
    monkeypatch.setitem(DATASETS, "tiny", replace(TINY, tables=TINY.tables | {"items.tsv": other}))
    with pytest.raises(KgrecError, match=r"items\.tsv of tiny-demo==1\.0 is not the table"):
        get_dataset("tiny", lambda text: None)


def test_an_unknown_dataset_or_table_names_the_nearest(shop):
    with pytest.raises(InputError, match="did you mean tiny"):
        get_dataset("tinny", lambda text: None)
    with pytest.raises(InputError, match="known: ml-100k, tiny"):
        get_dataset("zzz", lambda text: None)
    with pytest.raises(InputError, match=r"did you mean demo:tiny/items\.tsv"):
        demo_path("demo:tiny/item.tsv", lambda text: None)
    with pytest.raises(InputError, match=r"tables of tiny: interactions\.tsv, items\.tsv"):
        demo_path("demo:tiny", lambda text: None)
    assert demo_path("demo:tiny/items.tsv", lambda text: None).read_text().startswith("item\ttitle\n")


def test_pip_is_asked_for_the_pinned_wheel_alone_and_its_refusal_is_passed_on(tmp_path, monkeypatch):
    commands = []

    def run(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(KgrecError, match=r"cannot fetch tiny-demo==1\.0 with pip: ERROR: No matching") as error:
        datasets._download("tiny-demo==1.0", tmp_path)
    assert "check the network" in str(error.value)
    assert commands[0][1:4] == ["-m", "pip", "download"]
    assert "--no-deps" in commands[0]
    assert commands[0][-1] == "tiny-demo==1.0"


def test_the_cache_lies_where_the_user_says(monkeypatch):
    for name in ("KGREC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path.home() / ".cache" / "kgrec"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/kgrec")
    monkeypatch.setenv("KGREC_CACHE", "/k")
    assert cache_folder() == Path("/k")


def test_every_known_dataset_is_pinned_and_its_tables_come_from_its_files():
    for dataset in DATASETS.values():
        assert "==" in dataset.requirement
        assert dataset.terms
        assert {table.source for table in dataset.tables.values()} <= set(dataset.files)
        assert all(len(sha) == 64 for sha in dataset.files.values())
        assert not set(dataset.tables) & set(dataset.files)
