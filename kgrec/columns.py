"""Every column name and dtype of the tables that kgrec reads and writes.

"id" is the raw identifier a user brought, always text inside kgrec; "row" is an index into a table of
vectors. Only `kgrec.data.vocabulary.Vocabulary` converts one to the other.
"""

from __future__ import annotations

from typing import Final

import polars as pl

# Raw ids, as text.
USER: Final = "user"
ITEM: Final = "item"
ENTITY: Final = "entity"
HEAD: Final = "head"
RELATION: Final = "relation"
TAIL: Final = "tail"
LABEL: Final = "label"
TITLE: Final = "title"
NAME: Final = "name"
LANGUAGE: Final = "language"
HEAD_IS_ITEM: Final = "head_is_item"
WEIGHT: Final = "weight"
KNOWN_AT: Final = "known_at"
BINS: Final = "bins"

# Rows: indices into the tables of vectors.
ROW: Final = "row"
ID: Final = "id"
USER_ROW: Final = "user_row"
ITEM_ROW: Final = "item_row"
HEAD_ROW: Final = "head_row"
RELATION_ROW: Final = "relation_row"
TAIL_ROW: Final = "tail_row"

# What happened, and when.
EVENT: Final = "event"
TIME: Final = "time"
VALUE: Final = "value"
IMPRESSION: Final = "impression"
CLICK: Final = "click"
CONVERSION: Final = "conversion"
PART: Final = "part"
SOURCE: Final = "source"
LINE: Final = "line"
REASON: Final = "reason"

# Answers.
SCORE: Final = "score"
RANK: Final = "rank"
SYSTEM: Final = "system"
GROUP: Final = "group"
PROBABILITY: Final = "probability"
RANDOM: Final = "shown_at_random"
TAIL_RANK: Final = "tail_rank"
HEAD_RANK: Final = "head_rank"

# The parts of a split.
TRAIN: Final = "train"
VALIDATION: Final = "validation"
TEST: Final = "test"
PARTS: Final = (TRAIN, VALIDATION, TEST)

ID_TYPE: Final = pl.String()
ROW_TYPE: Final = pl.Int32()
TIME_TYPE: Final = pl.Datetime("us", "UTC")
PART_TYPE: Final = pl.Enum(PARTS)

VOCABULARY_SCHEMA: Final = {ROW: ROW_TYPE, ID: ID_TYPE}

EVENTS_SCHEMA: Final = {
    USER: ID_TYPE,
    ITEM: ID_TYPE,
    TIME: TIME_TYPE,
    VALUE: pl.Float32(),
    CLICK: pl.Boolean(),
    CONVERSION: pl.Boolean(),
}
"""Behaviour: one row is one event that counts as a click, a conversion or both. `time`, `value` may be null."""

EXPOSURES_SCHEMA: Final = {
    USER: ID_TYPE,
    ITEM: ID_TYPE,
    TIME: TIME_TYPE,
    CLICK: pl.Boolean(),
    CONVERSION: pl.Boolean(),
}
"""One row is one item shown to one user and what came of it. Declared context columns follow; a label that the
data does not have is absent."""

TRIPLES_SCHEMA: Final = {
    HEAD: ID_TYPE,
    RELATION: ID_TYPE,
    TAIL: ID_TYPE,
    SOURCE: pl.String(),
    HEAD_IS_ITEM: pl.Boolean(),
    WEIGHT: pl.Float32(),
    KNOWN_AT: TIME_TYPE,
}
"""One row is one fact. `source` is the file it came from; `weight` is above 0, and 1 where nobody said; `known_at` is
when it could first be known, null where it always was."""

ATTRIBUTES_SCHEMA: Final = {
    ENTITY: ID_TYPE,
    RELATION: ID_TYPE,
    VALUE: pl.String(),
    LANGUAGE: pl.String(),
    SOURCE: pl.String(),
}
"""Literals of RDF: what is said of an entity in words or numbers. `language` is the tag in lower case, "" without."""

NUMBERS_SCHEMA: Final = {
    HEAD: ID_TYPE,
    RELATION: ID_TYPE,
    VALUE: pl.Float64(),
    SOURCE: pl.String(),
    HEAD_IS_ITEM: pl.Boolean(),
    KNOWN_AT: TIME_TYPE,
    BINS: pl.Int32(),
}
"""Numbers that become triples once the split is known: `bins` is how many bins the train part is cut into."""

LINKS_SCHEMA: Final = {ITEM: ID_TYPE, ENTITY: ID_TYPE}
LABELS_SCHEMA: Final = {ENTITY: ID_TYPE, LABEL: pl.String()}
QUARANTINE_SCHEMA: Final = {
    SOURCE: pl.String(),
    LINE: pl.Int64(),
    REASON: pl.String(),
    "row_text": pl.String(),
}
"""A row that was left out: where it came from (file or table name), its 1-based data line (header not counted,
null where the source has no order), why, and the row itself as JSON."""

PER_USER_SCHEMA: Final = {SYSTEM: pl.String(), GROUP: pl.String(), USER_ROW: ROW_TYPE}
"""Ranking by user: which system's lists, "ranking" or "ranking_cold"; a Float64 column for each metric follows."""

PER_ROW_SCHEMA: Final = {
    GROUP: pl.String(),
    USER_ROW: ROW_TYPE,
    LABEL: pl.Float32(),
    PROBABILITY: pl.Float64(),
}
"""One judged probability: "click", "conversion" or "click_and_conversion"; user_row is -1 where it is unknown."""

PER_TRIPLE_SCHEMA: Final = {
    HEAD_ROW: ROW_TYPE,
    RELATION_ROW: ROW_TYPE,
    TAIL_ROW: ROW_TYPE,
    TAIL_RANK: pl.Float64(),
    HEAD_RANK: pl.Float64(),
}
"""One judged triple and the ranks of its true ends among all entities, from 1; realistic, so they may end in .5."""
