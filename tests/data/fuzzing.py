"""Mutated triple files and RDF documents, and what an ingest of each may do: account for all of it, or refuse it."""

from __future__ import annotations

import csv
import gzip
import io
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyoxigraph as ox

from kgrec.errors import InputError
from tests.data.ingesting import run, table

RDFS_LABEL = "http://www.w3.org/2000/01/rdf-schema#label"
FORMATS = {"nt": ox.RdfFormat.N_TRIPLES, "ttl": ox.RdfFormat.TURTLE, "nq": ox.RdfFormat.N_QUADS}
KINDS = ("csv", "tsv", "parquet", "nt", "ttl", "nq", "csv.gz", "nt.gz")
BITS = (b"\x00", b"\xff", b"\xed\xa0\x80", b'"', b"\n", b"\r", b"\r\n", b",", b"\t", b" ", b"<", b">", b".", b"\\",
        b"\\u12", b"_:", b"@en", b"^^", b"'''", b"[", b"(", b"#", b"<<( ", b" )>>", b"\xe2\x80\xa8", b"nan", b"1e999",
        b"-1", b"head", b"tail", b"\xef\xbb\xbf", "é".encode(), b"a" * 5000)  # fmt: skip


def document(kind: str, draw: random.Random) -> bytes:
    """Return a good document of a kind: some triples, in RDF also labels, literals and blank nodes."""
    rows = [
        (f"e{draw.randrange(9)}", f"r{draw.randrange(3)}", f"e{draw.randrange(9)}") for _ in range(draw.randrange(12))
    ]
    stem = kind.removesuffix(".gz")
    if stem in ("csv", "tsv", "parquet"):
        weights = [draw.choice(["1", "0.5", ""]) for _ in rows]
        times = [draw.choice(["", "2024-01-01", "1700000000"]) for _ in rows]
        cells = [(*row, w, t) for row, w, t in zip(rows, weights, times, strict=True)]
        columns = ("head", "relation", "tail", "weight", "known_at")
        frame = pl.DataFrame(cells, orient="row", schema=dict.fromkeys(columns, pl.String))
        out = io.BytesIO()
        if stem == "parquet":
            frame.write_parquet(out)
        else:
            frame.write_csv(out, separator="," if stem == "csv" else "\t")
        plain = out.getvalue()
    else:
        lines = [f"<http://{h}> <http://{r}> <http://{t}> ." for h, r, t in rows]
        lines += [
            f'<http://{h}> <http://{r}> "{t} \\" {r}"@{draw.choice(["en", "de", "fr-be"])} .' for h, r, t in rows[:3]
        ]
        names = [draw.choice(["Name", " ", "x\\ny"]) for _ in rows[:3]]
        lines += [f'<http://{h}> <{RDFS_LABEL}> "{name}" .' for (h, _, _), name in zip(rows, names, strict=False)]
        lines += [f"_:b{at} <http://{r}> _:b{at + 1} ." for at, (_, r, _) in enumerate(rows[:2])]
        if stem == "nq":
            lines = [line[:-1] + draw.choice(["", "<http://g> ", "_:g "]) + "." for line in lines]
        if stem == "ttl":
            lines = ["@prefix e: <http://e/> .", *lines, "e:a e:b [ e:c 5 ; e:d (1 e:x) ] , '''a\nb''' ."]
        plain = ("\n".join(lines) + "\n").encode()
    return gzip.compress(plain, mtime=0) if kind.endswith(".gz") else plain


def mutated(text: bytes, draw: random.Random) -> bytes:
    """Return a document with up to four faults: bytes flipped, cut, doubled, moved, put in, or the end missing."""
    data = bytearray(text)
    for _ in range(draw.randrange(5)):
        at, to = sorted((draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)))
        kind = draw.randrange(7)
        if kind == 0 and at < len(data):
            data[at] = draw.randrange(256)
        elif kind == 1:
            del data[at : at + draw.randrange(1, 6)]
        elif kind == 2:
            data[at:at] = draw.choice(BITS)
        elif kind == 3:
            data[at:at] = data[at:to][:200]
        elif kind == 4 and draw.random() < 0.3:
            del data[at:]
        elif kind == 5:
            lines = bytes(data).split(b"\n")
            lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines))
            data = bytearray(b"\n".join(lines))
        elif kind == 6:
            data[at:to] = bytes(reversed(data[at:to])) if draw.random() < 0.2 else data[at:to]
    return bytes(data)


def ingested(folder: Path, name: str, data: bytes) -> str:
    """Ingest a document and check that nothing is lost; return "read", "read in part" or "refused".

    Any error but an InputError, and any row that is not accounted for, is raised.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / name).write_bytes(data)
    try:
        facts = run(folder, knowledge={"triples": [name], "tolerated": 1.0})
    except InputError as error:
        _check_refusal(error, name, data)
        return "refused"
    quarantined = sum(facts["quarantined"].values())
    assert table(folder, "quarantine").height == quarantined
    (told,) = facts["inputs"].values()
    assert told["rows"] == told["kept"] + quarantined
    assert table(folder, "triples").height == facts["triples"] == told["kept"] - facts["triples_repeated"]
    assert told["rows"] == ROWS[name.split(".")[1]](_plain(name, data), facts)
    return "read in part" if quarantined else "read"


def _plain(name: str, data: bytes) -> bytes:
    return gzip.decompress(data) if name.endswith(".gz") else data


def _check_refusal(error: InputError, name: str, data: bytes) -> None:
    """A refusal names the file, what to do, and in text the line; the line exists."""
    for problem in error.problems:
        assert name in problem.where or problem.where.startswith("knowledge"), problem
        assert problem.remedy
        said = f"{problem.what} {problem.example}"
        if "damaged" in said or "column" in said or "header" in said or "parquet" in name.lower():
            continue
        lines = [int(found) for found in re.findall(r"line (\d+)", said)]
        assert lines, problem
        assert max(lines) <= _plain(name, data).count(b"\n") + _plain(name, data).count(b"\r") + 2, problem


def _records(plain: bytes, separator: str) -> int:
    text = io.StringIO(plain.decode("utf-8-sig"), newline="")
    csv.field_size_limit(1 << 24)
    return sum(1 for record in csv.reader(text, delimiter=separator) if record) - 1


def _statements(plain: bytes, facts: dict[str, Any], kind: str) -> int:
    """The triples among the statements that a bare loop over the parser sees; the literals must be counted by kind."""
    quads = list(ox.parse(input=plain, format=FORMATS[kind]))
    literals = sum(isinstance(quad.object, ox.Literal) for quad in quads)
    said = (
        "rdf_label_statements",
        "blank_literals",
        "attributes_in_other_languages",
        "attributes",
        "attributes_repeated",
    )
    assert facts["rdf_statements"] == len(quads)
    assert literals == sum(facts[name] for name in said)
    return len(quads) - literals


ROWS: dict[str, Callable[[bytes, dict[str, Any]], int]] = {
    "csv": lambda plain, _: _records(plain, ","),
    "tsv": lambda plain, _: _records(plain, "\t"),
    "parquet": lambda plain, _: pl.read_parquet(io.BytesIO(plain)).height,
    **{kind: lambda plain, facts, kind=kind: _statements(plain, facts, kind) for kind in FORMATS},
}


def drawn(number: int, seed: int) -> tuple[str, bytes]:
    """Return the kind and the bytes of one mutated document; all kinds come in turn."""
    kind = KINDS[number % len(KINDS)]
    draw = random.Random(f"{seed} {number}")
    text = document(kind.removesuffix(".gz"), draw)
    if kind.endswith(".gz") and draw.random() < 0.5:
        return kind, gzip.compress(mutated(text, draw), mtime=0)
    return kind, mutated(gzip.compress(text, mtime=0) if kind.endswith(".gz") else text, draw)


def fuzz(
    folder: Path, documents: int, seed: int, progress: Callable[[int], None] = lambda done: None
) -> dict[str, Counter[str]]:
    """Ingest so many mutated documents; return what became of each kind.

    What fails is raised at the end, all of it, each with its number.
    """
    found = {kind: Counter[str]() for kind in KINDS}
    failed: list[BaseException] = []
    for number in range(documents):
        kind, data = drawn(number, seed)
        try:
            found[kind][ingested(folder, f"a.{kind}", data)] += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also what a library throws in panic
            error.add_note(f"document {number} of seed {seed}")
            failed.append(error)
        progress(number + 1)
    if failed:
        raise BaseExceptionGroup("documents neither read nor refused", failed)
    return found
