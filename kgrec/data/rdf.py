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
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import polars as pl
import pyoxigraph

from kgrec.columns import ATTRIBUTES_SCHEMA, ENTITY, LABEL, LANGUAGE, RELATION, SOURCE, VALUE
from kgrec.data.blank_nodes import named_by_content
from kgrec.data.quads import LITERAL_SCHEMA, TRIPLE_SCHEMA, quad_frames
from kgrec.errors import InputError, Problem

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


@dataclass(frozen=True)
class RdfTriples:
    """What an RDF file says, and where each of its statements went.

    statements: all of the file. triples: head, relation, tail, graph, in file order. labels: `LABELS_SCHEMA`, the best
    label of each entity, of label_statements. attributes: `ATTRIBUTES_SCHEMA`. other_languages: literals left out
    because of their language. blank_literals: left out since they hold no character. prefixes: what the file declares.
    """

    statements: int
    triples: pl.DataFrame
    labels: pl.DataFrame
    label_statements: int
    attributes: pl.DataFrame
    other_languages: int
    blank_literals: int
    prefixes: dict[str, str]


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
    with _opened(path) as stream, _explained(name):
        parser = pyoxigraph.parse(input=stream, format=_FORMATS[_suffix(path.name)])
        frames = list(quad_frames(parser))
        prefixes = dict(parser.prefixes)
    triples = pl.concat([pl.DataFrame(schema=TRIPLE_SCHEMA), *(frame for frame, _ in frames)])
    literals = pl.concat([pl.DataFrame(schema=LITERAL_SCHEMA), *(frame for _, frame in frames)])
    said, literal = named_by_content(triples, literals, name)
    told = literal.filter(pl.col(VALUE).str.strip_chars() != "").with_columns(_rank(languages))
    is_label = pl.col(RELATION).is_in(LABEL_PROPERTIES)
    labels, others = told.filter(is_label), told.filter(~is_label)
    wanted = others.filter(pl.col("rank") <= len(languages)).with_columns(pl.lit(name).alias(SOURCE))
    return RdfTriples(
        statements=triples.height + literals.height,
        triples=said,
        labels=_labels(labels),
        attributes=wanted.select(*ATTRIBUTES_SCHEMA),
        other_languages=others.height - wanted.height,
        blank_literals=literal.height - told.height,
        label_statements=labels.height,
        prefixes=prefixes,
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
