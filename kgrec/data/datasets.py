"""Demo data: fetched on request, checked, kept in the user's cache; never part of the project."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from kgrec.artifacts import hash_file, write_atomically
from kgrec.errors import InputError, KgrecError, Problem, nearest


@dataclass(frozen=True)
class DemoTable:
    """A table made from one of the files: its new header, columns of one value to add, and what it must hash to."""

    source: str
    header: tuple[str, ...]
    sha256: str
    constants: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DemoDataset:
    """Where a demo dataset lies in a package of the Python index, and what its files must hash to (SHA-256)."""

    requirement: str
    folder: str
    files: dict[str, str]
    tables: dict[str, DemoTable]
    terms: str


ML_100K: Final = DemoDataset(
    requirement="recbole==1.2.1",
    folder="recbole/dataset_example/ml-100k",
    files={
        "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
        "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
        "ml-100k.kg": "200a0636fa07c218119a42e5bac7aa3e26e3665a6f919c1b22909bd412b14779",
        "ml-100k.link": "524dca2c3d62619688ab99b3ec53ea2acb9b64d38eafec3e02bdd0dc6bb7d948",
        "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
    },
    tables={
        "interactions.tsv": DemoTable(
            "ml-100k.inter",
            ("user", "item", "value", "timestamp"),
            "248ca957bb84b176dda75e6a022e9ed7b5fdda243fa5783acb25858062b1aca8",
            constants={"event": "rating"},
        ),
        "items.tsv": DemoTable(
            "ml-100k.item",
            ("item", "title", "release_year", "genres"),
            "b090482143d2bfddfd5ca81cf7dccdb7f3fc7ab1d5a289bb60c7793346acc578",
        ),
        "users.tsv": DemoTable(
            "ml-100k.user",
            ("user", "age", "gender", "occupation", "zip_code"),
            "a0eb2b1e95b52845a937b9ae9f963863a7fa66524a3e7fad993b27293fd1bcde",
        ),
        "triples.tsv": DemoTable(
            "ml-100k.kg",
            ("head", "relation", "tail"),
            "112a2d67b14cef4d1c6b0068d4012454945674462d337ba48b5bd64a84217884",
        ),
        "item_entity.tsv": DemoTable(
            "ml-100k.link", ("item", "entity"), "1636fa6740ffc80abb688eba9e6a92233ed3b6833daf6f11ce47f00b295d0a16"
        ),
    },
    terms=(
        "MovieLens-100k: for research use; no commercial use without permission of GroupLens, University of "
        "Minnesota; redistribution only under the same terms. The graph comes from Freebase (CC BY) through KB4Rec."
    ),
)
DEMO_PREFIX: Final = "demo:"
DATASETS: Final = {"ml-100k": ML_100K}


def cache_folder() -> Path:
    """Return the user's cache folder for kgrec: $KGREC_CACHE, $XDG_CACHE_HOME/kgrec or ~/.cache/kgrec."""
    named = os.environ.get("KGREC_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kgrec"


@cache
def get_dataset(name: str, progress: Callable[[str], None]) -> Path:
    """Return the folder of a demo dataset, fetching it when it is not in the cache or was changed there.

    Checked once per process.

    Raises InputError for an unknown name and KgrecError when the download fails or does not match its checksum.
    """
    dataset = DATASETS.get(name)
    if dataset is None:
        guess = nearest(name, DATASETS)
        remedy = f"did you mean {guess}?" if guess else f"known: {', '.join(DATASETS)}"
        raise InputError(Problem(f"data get {name}", "no such demo dataset", remedy))
    folder = cache_folder() / name
    if _complete(folder, dataset):
        return folder
    progress(f"fetching {name} from the package {dataset.requirement}")
    progress(dataset.terms)
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _download(dataset.requirement, Path(scratch))
        folder.mkdir(parents=True, exist_ok=True)
        _unpack(wheel, dataset, folder)
    return folder


def demo_path(reference: str, progress: Callable[[str], None]) -> Path:
    """Return the path behind a reference such as `demo:ml-100k/items.tsv`, fetching the dataset when it is missing."""
    name, _, table = reference.removeprefix(DEMO_PREFIX).partition("/")
    folder = get_dataset(name, progress)
    tables = DATASETS[name].tables
    if table not in tables:
        guess = nearest(table, tables)
        remedy = f"did you mean demo:{name}/{guess}?" if guess else f"tables of {name}: {', '.join(tables)}"
        raise InputError(Problem(reference, "no such table in the demo dataset", remedy))
    return folder / table


def _complete(folder: Path, dataset: DemoDataset) -> bool:
    wanted = dataset.files | {name: table.sha256 for name, table in dataset.tables.items()}
    return all((folder / name).is_file() and hash_file(folder / name) == sha for name, sha in wanted.items())


def _table(content: bytes, table: DemoTable) -> bytes:
    """Return the file with a plain header in place of its own (`name:type`), and the constant columns added."""
    _, *rows = content.decode("utf-8").replace("\r\n", "\n").rstrip("\n").split("\n")
    added = "".join(f"\t{value}" for value in table.constants.values())
    header = "\t".join((*table.header, *table.constants))
    return "".join(f"{line}\n" for line in (header, *(row + added for row in rows))).encode()


def _download(requirement: str, scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    done = subprocess.run([*command, "--dest", str(scratch), requirement], capture_output=True, text=True, check=False)
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise KgrecError(
            f"cannot fetch {requirement} with pip: {last}\n  remedy:  check the network and pip's settings"
        )
    return wheels[0]


def _unpack(wheel: Path, dataset: DemoDataset, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name, expected in dataset.files.items():
            content = archive.read(f"{dataset.folder}/{name}")
            found = hashlib.sha256(content).hexdigest()
            if found != expected:
                raise KgrecError(
                    f"{dataset.requirement}: {name} has SHA-256 {found[:12]}..., expected {expected[:12]}...\n"
                    "  remedy:  the package index served something else; try another index"
                )
            write_atomically(folder / name, content)
    for name, table in dataset.tables.items():
        content = _table((folder / table.source).read_bytes(), table)
        if hashlib.sha256(content).hexdigest() != table.sha256:
            raise KgrecError(
                f"{name} of {dataset.requirement} is not the table that kgrec knows\n  remedy:  install kgrec again"
            )
        write_atomically(folder / name, content)
