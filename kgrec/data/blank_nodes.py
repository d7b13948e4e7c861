"""Stable names for blank nodes: by what is said of them, not by their place in the file."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Final

import polars as pl

from kgrec.columns import ENTITY, HEAD, LANGUAGE, RELATION, TAIL, VALUE

BLANK: Final = "_:"
_ROUNDS: Final = 4


def named_by_content(
    triples: pl.DataFrame, literals: pl.DataFrame, file: str
) -> tuple[pl.DataFrame, pl.DataFrame]:  # fmt: skip
    """Return the same rows with each blank node called `_:FILE:HASH`.

    triples: head, relation, tail; literals: entity, relation, value, language; blank nodes begin with "_:". The hash is
    of the node's statements, those of its blank neighbours to a depth of four rounds (colour refinement, as the first
    part of RDF canonicalisation). Nodes that cannot be told apart so are numbered in the order of the file.
    """
    about = _statements(triples, literals)
    if not about:
        return triples, literals
    hashes = dict.fromkeys(about, "")
    for _ in range(_ROUNDS):
        hashes = {
            node: _digest(sorted(f"{way}\n{relation}\n{hashes.get(other, other)}" for way, relation, other in said))
            for node, said in about.items()
        }
    names: dict[str, str] = {}
    times: dict[str, int] = defaultdict(int)
    for node, found in hashes.items():
        again = f".{times[found]}" if times[found] else ""
        names[node] = f"{BLANK}{file}:{found}{again}"
        times[found] += 1
    ends = [_renamed(column, names) for column in (HEAD, TAIL)]
    return triples.with_columns(*ends), literals.with_columns(_renamed(ENTITY, names))


def _statements(triples: pl.DataFrame, literals: pl.DataFrame) -> dict[str, list[tuple[str, str, str]]]:
    """(direction, relation, the other end) of every statement about each blank node, nodes in the order of the file."""
    about: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    blank_head, blank_tail = (pl.col(end).str.starts_with(BLANK) for end in (HEAD, TAIL))
    for head, relation, tail in triples.filter(blank_head | blank_tail).select(HEAD, RELATION, TAIL).iter_rows():
        if head.startswith(BLANK):
            about[head].append(("out", relation, tail))
        if tail.startswith(BLANK):
            about[tail].append(("in", relation, head))
    told = literals.filter(pl.col(ENTITY).str.starts_with(BLANK)).select(ENTITY, RELATION, VALUE, LANGUAGE)
    for head, relation, value, language in told.iter_rows():
        about[head].append(("is", relation, f"{language}@{value}"))
    return about


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n\n".join(lines).encode()).hexdigest()[:16]


def _renamed(column: str, names: dict[str, str]) -> pl.Expr:
    whole = pl.col(column)
    new = whole.replace_strict(names, default=whole, return_dtype=pl.String)
    return pl.when(whole.str.starts_with(BLANK)).then(new).otherwise(whole).alias(column)
