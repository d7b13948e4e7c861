"""Names for people: IRIs with a prefix in place of their beginning, relations in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import polars as pl

WELL_KNOWN: Final = {
    "dbo": "http://dbpedia.org/ontology/",
    "dbp": "http://dbpedia.org/property/",
    "dbr": "http://dbpedia.org/resource/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "dcterms": "http://purl.org/dc/terms/",
    "fb": "http://rdf.freebase.com/ns/",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "owl": "http://www.w3.org/2002/07/owl#",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "schema": "https://schema.org/",
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "wd": "http://www.wikidata.org/entity/",
    "wdt": "http://www.wikidata.org/prop/direct/",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
}
_WORD_BREAK: Final = re.compile(r"[_\s-]+|(?<=[a-z])(?=[A-Z])")


def all_prefixes(declared: Mapping[str, str]) -> dict[str, str]:
    """Return the well-known prefixes with the user's own on top; an own prefix takes a well-known one's name.

    >>> all_prefixes({"wd": "http://mine/"})["wd"]
    'http://mine/'
    """
    return WELL_KNOWN | dict(declared)


def short_name(iri: str, prefixes: Mapping[str, str]) -> str:
    """Return an id with the longest prefix that fits in place of its beginning; other ids as they are.

    >>> short_name("http://dbpedia.org/ontology/director", WELL_KNOWN), short_name("m.01", WELL_KNOWN)
    ('dbo:director', 'm.01')
    """
    fitting = [(len(start), name) for name, start in prefixes.items() if start and iri.startswith(start)]
    if not fitting:
        return iri
    length, name = max(fitting)
    rest = iri[length:]
    return f"{name}:{rest}" if rest else iri


def long_name(name: str, prefixes: Mapping[str, str]) -> str:
    """Return the IRI that a name with a prefix stands for; other names as they are.

    >>> long_name("dbo:director", WELL_KNOWN), long_name("genre:Comedy", WELL_KNOWN)
    ('http://dbpedia.org/ontology/director', 'genre:Comedy')
    """
    prefix, colon, rest = name.partition(":")
    return prefixes[prefix] + rest if colon and prefix in prefixes and not rest.startswith("//") else name


def short_names(ids: pl.Series, prefixes: Mapping[str, str]) -> pl.Series:
    """Return `short_name` of each id; only ids that look like IRIs are touched."""
    whole = pl.col(ids.name)
    short = whole
    for name, start in sorted(prefixes.items(), key=lambda item: (len(item[1]), item[0])):
        fits = whole.str.starts_with(start) & (whole.str.len_bytes() > len(start.encode()))
        short = pl.when(fits).then(pl.lit(f"{name}:") + whole.str.slice(len(start))).otherwise(short)
    return ids.to_frame().select(short).to_series() if prefixes else ids


def relation_words(relation: str) -> str:
    """Return a relation's name in the words a person reads.

    >>> relation_words("film.film.directed_by"), relation_words("http://dbpedia.org/ontology/birthPlace")
    ('directed by', 'birth place')
    """
    last = re.split(r"[./#:]", relation.rstrip("./#:"))[-1]
    words = " ".join(part for part in _WORD_BREAK.split(last) if part)
    return (words.lower() if any(letter.islower() for letter in words) else words) or relation
