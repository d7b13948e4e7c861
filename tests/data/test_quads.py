from __future__ import annotations

import polars as pl
import pyoxigraph as ox
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kgrec.data.quads import LITERAL_SCHEMA, TRIPLE_SCHEMA, quad_frames

IRIS = st.sampled_from(["http://e/a", "http://e/b?x=(1)&y=%20", "urn:é:\u2028", "http://e/_:x"]).map(ox.NamedNode)
BLANKS = st.sampled_from(["b0", "x.y-z"]).map(ox.BlankNode)
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(['a "b" \\ c', "\\n", "line\nnext\r\ttab", ' . "@en <http://e/g> .', "", "\x00\x1f", "\u2028\x85"]),
)
LITERALS = st.one_of(
    TEXTS.map(ox.Literal),
    st.builds(lambda text, tag: ox.Literal(text, language=tag), TEXTS, st.sampled_from(["en", "en-gb", "zh-hant-tw"])),
    st.builds(lambda text, kind: ox.Literal(text, datatype=kind), TEXTS, IRIS),
)
QUOTED = st.builds(ox.Triple, IRIS | BLANKS, IRIS, IRIS | LITERALS)
QUADS = st.builds(
    ox.Quad, IRIS | BLANKS, IRIS, IRIS | BLANKS | LITERALS | QUOTED, st.just(ox.DefaultGraph()) | IRIS | BLANKS
)


def plain(term: object) -> str:
    """What a term is called, one Python object at a time."""
    if isinstance(term, ox.BlankNode):
        return f"_:{term.value}"
    return f"<<( {term} )>>" if isinstance(term, ox.Triple) else term.value  # type: ignore[attr-defined]


@settings(max_examples=150, deadline=None)
@given(st.lists(QUADS, max_size=6), st.integers(1, 4))
@example([ox.Quad(ox.BlankNode("a"), ox.NamedNode("http://p"), ox.Literal("x\\", language="de"))], 1)
def test_every_term_is_what_the_parser_says(quads: list[ox.Quad], chunk: int) -> None:
    frames = list(quad_frames(iter(quads), chunk))
    triples = pl.concat([pl.DataFrame(schema=TRIPLE_SCHEMA), *(found for found, _ in frames)])
    literals = pl.concat([pl.DataFrame(schema=LITERAL_SCHEMA), *(found for _, found in frames)])
    graphs = ["" if isinstance(q.graph_name, ox.DefaultGraph) else str(q.graph_name) for q in quads]
    assert triples.rows() == [
        (plain(q.subject), q.predicate.value, plain(q.object), graph)
        for q, graph in zip(quads, graphs, strict=True)
        if not isinstance(q.object, ox.Literal)
    ]
    assert literals.rows() == [
        (plain(q.subject), q.predicate.value, q.object.value, q.object.language or "")
        for q in quads
        if isinstance(q.object, ox.Literal)
    ]


def test_an_error_of_the_source_is_not_swallowed() -> None:
    text = "<http://a> <http://p> <http://b> .\n" * 3 + "<http://a> broken .\n"
    parser = ox.parse(input=text, format=ox.RdfFormat.N_TRIPLES)
    frames = quad_frames(parser, 2)
    assert next(frames)[0].height == 2
    with pytest.raises(SyntaxError, match="line 4"):
        next(frames)
