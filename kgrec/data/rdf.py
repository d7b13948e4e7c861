"""RDF files as triples: N-Triples, Turtle, N-Quads, also .gz, streamed through pyoxigraph.

IRIs are ids. `rdfs:label` literals are labels; other literals are attributes, counted and not kept. Blank nodes are
numbered in the order of the file and prefixed by its name, so that those of two files stay apart.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import polars as pl
import pyoxigraph

from kgrec.columns import ENTITY, HEAD, LABEL, LABELS_SCHEMA, RELATION, TAIL
from kgrec.errors import InputError, Problem

GRAPH: Final = "graph"
RDFS_LABEL: Final = "http://www.w3.org/2000/01/rdf-schema#label"
_FORMATS: Final = {
    ".nt": pyoxigraph.RdfFormat.N_TRIPLES,
    ".ttl": pyoxigraph.RdfFormat.TURTLE,
    ".nq": pyoxigraph.RdfFormat.N_QUADS,
}
_TRIPLE_SCHEMA: Final = dict.fromkeys((HEAD, RELATION, TAIL, GRAPH), pl.String())
_CHUNK_ROWS: Final = 200_000


@dataclass(frozen=True)
class RdfTriples:
    """triples: head, relation, tail, graph, in file order. labels: `LABELS_SCHEMA`, the best label of each entity."""

    triples: pl.DataFrame
    labels: pl.DataFrame
    attributes: int


def is_rdf(name: str) -> bool:
    """Say whether a file name is one of an RDF file that kgrec reads.

    >>> is_rdf("own.nt.gz"), is_rdf("own.csv")
    (True, False)
    """
    return _suffix(name) in _FORMATS


def read_rdf(path: Path, name: str) -> RdfTriples:
    """Read one RDF file, `name` being what people call it.

    Of several labels of an entity, one in English or without a language comes first, then the first in the file.
    Raises InputError with the line for a syntax error, and for a damaged archive.
    """
    rows: list[tuple[str, str, str, str]] = []
    chunks: list[pl.DataFrame] = []
    labels: dict[str, tuple[bool, str]] = {}
    nodes: dict[str, str] = {}
    attributes = 0
    with _opened(path) as stream, _explained(name):
        for quad in pyoxigraph.parse(input=stream, format=_FORMATS[_suffix(path.name)]):
            subject, target = quad.subject, quad.object
            if isinstance(target, pyoxigraph.Literal):
                if quad.predicate.value != RDFS_LABEL or not target.value.strip():
                    attributes += 1
                    continue
                foreign = not (target.language or "en").startswith("en")
                head = _name(subject, name, nodes)
                if head not in labels or (labels[head][0] and not foreign):
                    labels[head] = (foreign, target.value.strip())
                continue
            graph = "" if isinstance(quad.graph_name, pyoxigraph.DefaultGraph) else str(quad.graph_name)
            rows.append((_name(subject, name, nodes), quad.predicate.value, _name(target, name, nodes), graph))
            if len(rows) == _CHUNK_ROWS:
                chunks.append(pl.DataFrame(rows, schema=_TRIPLE_SCHEMA, orient="row"))
                rows.clear()
    chunks.append(pl.DataFrame(rows, schema=_TRIPLE_SCHEMA, orient="row"))
    texts = {ENTITY: list(labels), LABEL: [text for _, text in labels.values()]}
    return RdfTriples(pl.concat(chunks), pl.DataFrame(texts, schema=LABELS_SCHEMA), attributes)


def _suffix(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


def _name(term: Any, file: str, nodes: dict[str, str]) -> str:
    """The id of a term; the parser gives unnamed blank nodes random names, so all are numbered anew."""
    if isinstance(term, pyoxigraph.NamedNode):
        return str(term.value)
    if isinstance(term, pyoxigraph.BlankNode):
        return nodes.setdefault(term.value, f"_:{file}:{len(nodes)}")
    return str(term)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as plain:
        if path.name.lower().endswith(".gz"):
            with gzip.open(plain) as packed:
                yield packed  # type: ignore[misc]  # a GzipFile reads bytes, which is all that is asked of it
        else:
            yield plain


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except SyntaxError as error:
        remedy = "correct the line (a validator such as `rapper -c FILE` finds the others)"
        what = f"broken RDF at line {error.lineno}"
        raise InputError(Problem(name, what, remedy, 1, f"line {error.lineno}: {error.msg}")) from None
    except (EOFError, OSError, zlib.error) as error:
        remedy = "copy or compress the file again"
        raise InputError(Problem(name, "the RDF file is damaged or cut off", remedy, 1, str(error)[:200])) from None
