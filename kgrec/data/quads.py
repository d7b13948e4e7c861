"""RDF statements as frames, a chunk at a time: pyoxigraph parses them, polars takes apart what it writes.

A Python object for every term costs more than parsing it. So the parser's quads go back to pyoxigraph by the chunk,
which writes them as canonical N-Quads: one statement a line, terms parted by one space, escapes and spaces in literals
and quoted triples alone. Of literals with an escape pyoxigraph is asked again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import polars as pl
import pyoxigraph

from kgrec.columns import ENTITY, HEAD, LANGUAGE, RELATION, TAIL, VALUE

GRAPH: Final = "graph"
TRIPLE_SCHEMA: Final = dict.fromkeys((HEAD, RELATION, TAIL, GRAPH), pl.String())
LITERAL_SCHEMA: Final = dict.fromkeys((ENTITY, RELATION, VALUE, LANGUAGE), pl.String())
_CHUNK_ROWS: Final = 200_000
_LINE, _REST, _SUFFIX = "line", "rest", "suffix"


def quad_frames(
    quads: Iterable[pyoxigraph.Quad], chunk: int = _CHUNK_ROWS
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Yield (triples, literals) of every `chunk` statements, in their order: TRIPLE_SCHEMA and LITERAL_SCHEMA.

    IRIs stand bare, blank nodes as "_:name", quoted triples as they are written; graph is "" for the default graph.
    """
    waiting = iter(quads)
    while text := pyoxigraph.serialize(islice(waiting, chunk), format=pyoxigraph.RdfFormat.N_QUADS):
        lines = pl.Series(_LINE, [text.decode().removesuffix("\n")]).str.split("\n").explode()
        yield _taken_apart(lines)


def _taken_apart(lines: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    parts = lines.str.splitn(" ", 3).struct.rename_fields([HEAD, RELATION, _REST]).struct.unnest()
    rows = parts.select(_bare(HEAD), _bare(RELATION), pl.col(_REST).str.strip_suffix(" ."))
    is_literal = pl.col(_REST).str.starts_with('"')
    literals = rows.filter(is_literal)
    return _resources(rows.filter(~is_literal) if literals.height else rows), _literals(literals)


def _resources(rows: pl.DataFrame) -> pl.DataFrame:
    two = pl.col(_REST).str.splitn(" ", 2).struct.rename_fields([TAIL, GRAPH])
    plain = rows.with_columns(two).unnest(_REST)
    if rows[_REST].str.starts_with("<<").any():
        quoted = pl.col(_REST).str.starts_with("<<")
        split = pl.col(_REST).str.extract_groups(r"^(<<.*>>)(?: ([^ ]+))?$").struct.rename_fields(["quoted", "of"])
        both = plain.with_columns(rows[_REST]).with_columns(split.alias("split")).unnest("split")
        plain = both.with_columns(
            pl.when(quoted).then("quoted").otherwise(TAIL).alias(TAIL),
            pl.when(quoted).then("of").otherwise(GRAPH).alias(GRAPH),
        )
    return plain.select(HEAD, RELATION, _bare(TAIL), pl.col(GRAPH).fill_null(""))


def _literals(rows: pl.DataFrame) -> pl.DataFrame:
    whole = rows.with_columns(
        pl.col(_REST).str.extract(r'(?s)^"(.*)"').alias(VALUE), pl.col(_REST).str.extract(r'"([^"]*)$').alias(_SUFFIX)
    )
    language = pl.col(_SUFFIX).str.extract(r"^@([A-Za-z0-9]+(?:-[A-Za-z0-9]+)*)").fill_null("")
    return whole.select(
        pl.col(HEAD).alias(ENTITY), RELATION, _unescaped(whole[VALUE]).alias(VALUE), language.alias(LANGUAGE)
    )


def _bare(column: str) -> pl.Expr:
    """An IRI without its brackets; other terms as they are."""
    whole = pl.col(column)
    return pl.when(whole.str.starts_with("<<")).then(whole).otherwise(whole.str.strip_chars("<>")).alias(column)


def _unescaped(values: pl.Series) -> pl.Series:
    escaped = values.filter(values.str.contains("\\", literal=True)).unique(maintain_order=True)
    if escaped.is_empty():
        return values
    text = "\n".join(f'<x:x> <x:x> "{value}" .' for value in escaped)
    read = [str(quad.object.value) for quad in pyoxigraph.parse(input=text, format=pyoxigraph.RdfFormat.N_TRIPLES)]
    return values.replace_strict(escaped, pl.Series(read, dtype=pl.String), default=values)
