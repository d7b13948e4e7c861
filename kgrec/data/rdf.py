"""RDF files as triples: N-Triples, Turtle, N-Quads, also .gz, streamed through pyoxigraph.

IRIs are ids. Labels (rdfs:label, skos:prefLabel, schema:name, foaf:name) name entities, in the wanted language; other
literals are attributes. Blank nodes are named by what is said of them (`kgrec.data.blank_nodes`), prefixed by the name
of the file, so that those of two files stay apart and a line added elsewhere renames none.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import polars as pl
import pyoxigraph

from kgrec.columns import ATTRIBUTES_SCHEMA, ENTITY, HEAD, LABEL, LANGUAGE, RELATION, SOURCE, TAIL, VALUE
from kgrec.data.blank_nodes import BLANK, named_by_content
from kgrec.errors import InputError, Problem

GRAPH: Final = "graph"
RDFS_LABEL: Final = "http://www.w3.org/2000/01/rdf-schema#label"
LABEL_PROPERTIES: Final = (
    RDFS_LABEL,
    "http://www.w3.org/2004/02/skos/core#prefLabel",
    "https://schema.org/name",
    "http://schema.org/name",
    "http://xmlns.com/foaf/0.1/name",
)
"""What names an entity, the most telling first."""
ENGLISH: Final = ("en", "")
_FORMATS: Final = {
    ".nt": pyoxigraph.RdfFormat.N_TRIPLES,
    ".ttl": pyoxigraph.RdfFormat.TURTLE,
    ".nq": pyoxigraph.RdfFormat.N_QUADS,
}
_TRIPLE_SCHEMA: Final = dict.fromkeys((HEAD, RELATION, TAIL, GRAPH), pl.String())
_LITERAL_SCHEMA: Final = dict.fromkeys((ENTITY, RELATION, VALUE, LANGUAGE), pl.String())
_CHUNK_ROWS: Final = 200_000


@dataclass(frozen=True)
class RdfTriples:
    """What an RDF file says.

    triples: head, relation, tail, graph, in file order. labels: `LABELS_SCHEMA`, the best label of each entity.
    attributes: `ATTRIBUTES_SCHEMA`. other_languages: literals left out because of their language. prefixes: those the
    file declares.
    """

    triples: pl.DataFrame
    labels: pl.DataFrame
    attributes: pl.DataFrame
    other_languages: int
    prefixes: dict[str, str]


@dataclass
class _Rows:
    """Rows that are packed into a frame now and then, since tuples take many times the memory."""

    schema: dict[str, Any]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    chunks: list[pl.DataFrame] = field(default_factory=list)

    def pack(self, at_least: int = 1) -> None:
        if len(self.rows) >= at_least:
            self.chunks.append(pl.DataFrame(self.rows, schema=self.schema, orient="row"))
            self.rows.clear()

    def frame(self) -> pl.DataFrame:
        self.pack()
        return pl.concat(self.chunks) if self.chunks else pl.DataFrame(schema=self.schema)


def is_rdf(name: str) -> bool:
    """Say whether a file name is one of an RDF file that kgrec reads.

    >>> is_rdf("own.nt.gz"), is_rdf("own.csv")
    (True, False)
    """
    return _suffix(name) in _FORMATS


def read_rdf(path: Path, name: str, languages: Sequence[str] = ENGLISH) -> RdfTriples:
    """Read one RDF file, `name` being what people call it.

    languages: wanted language tags, the most wanted first; "en" takes en-GB, too, "" is text without a tag. Of several
    labels of an entity the most wanted language comes first, then the most telling property, then the first in the
    file; a label in a language that nobody wants is better than none. Attributes in such a language are left out.
    Raises InputError with the line for a syntax error, and for a damaged archive.
    """
    triples, literals = _Rows(_TRIPLE_SCHEMA), _Rows(_LITERAL_SCHEMA)
    with _opened(path) as stream, _explained(name):
        parser = pyoxigraph.parse(input=stream, format=_FORMATS[_suffix(path.name)])
        for quad in parser:
            subject, target = quad.subject, quad.object
            head = subject.value if isinstance(subject, pyoxigraph.NamedNode) else _text(subject)
            if isinstance(target, pyoxigraph.Literal):
                literals.rows.append((head, quad.predicate.value, target.value, target.language or ""))
                literals.pack(_CHUNK_ROWS)
                continue
            tail = target.value if isinstance(target, pyoxigraph.NamedNode) else _text(target)
            graph = "" if isinstance(quad.graph_name, pyoxigraph.DefaultGraph) else str(quad.graph_name)
            triples.rows.append((head, quad.predicate.value, tail, graph))
            triples.pack(_CHUNK_ROWS)
        prefixes = dict(parser.prefixes)
    said, told = named_by_content(triples.frame(), literals.frame(), name)
    told = told.filter(pl.col(VALUE).str.strip_chars() != "").with_columns(_rank(languages))
    is_label = pl.col(RELATION).is_in(LABEL_PROPERTIES)
    others = told.filter(~is_label)
    wanted = others.filter(pl.col("rank") <= len(languages)).with_columns(pl.lit(name).alias(SOURCE))
    return RdfTriples(
        said, _labels(told.filter(is_label)), wanted.select(*ATTRIBUTES_SCHEMA), others.height - wanted.height, prefixes
    )


def _labels(told: pl.DataFrame) -> pl.DataFrame:
    property_rank = pl.col(RELATION).replace_strict(
        {name: at for at, name in enumerate(LABEL_PROPERTIES)}, return_dtype=pl.Int32
    )
    best = (
        told.with_row_index("at")
        .sort("rank", property_rank, "at")
        .unique(ENTITY, keep="first", maintain_order=True)
        .sort("at")
    )
    return best.select(ENTITY, pl.col(VALUE).str.strip_chars().alias(LABEL))


def _rank(languages: Sequence[str]) -> pl.Expr:
    """How wanted a literal's language is, 0 most; text without a tag comes last of the wanted unless "" says else."""
    tag = pl.col(LANGUAGE).str.to_lowercase()
    rank = pl.when(tag == "").then(len(languages)).otherwise(len(languages) + 1)
    for at, language in reversed(list(enumerate(languages))):
        wanted = language.lower()
        fits = (tag == wanted) | (tag.str.starts_with(f"{wanted}-") if wanted else pl.lit(False))
        rank = pl.when(fits).then(at).otherwise(rank)
    return rank.alias("rank")


def _suffix(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


def _text(term: Any) -> str:
    """A blank node as the parser calls it for now; a quoted triple as it is written."""
    return BLANK + term.value if isinstance(term, pyoxigraph.BlankNode) else str(term)


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
