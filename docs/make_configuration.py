"""Writes docs/configuration.md from the config types, so that the page cannot say what the code does not.

Run it after a change of any config type: python docs/make_configuration.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kgrec.config import RunConfig

Homes = Mapping[type[BaseModel], str]
"""Under which key each type of table is described: the first that holds it."""
PAGE = Path(__file__).with_name("configuration.md")
_HEAD = """\
# Configuration

<!-- Written by docs/make_configuration.py from the config types; do not edit by hand. -->

A config is one TOML file. Only `[interactions]` is required, or `[knowledge]` for a graph without a log. Every other
key has a default. Relative paths start at the folder of the config. `--set KEY=VALUE` overrides one key for one run:
`--set training.epochs=3`. An unknown key is refused, with the nearest known name.

"-" means: not set; the meaning says what then happens. A list of tables is written as `[[knowledge.tables]]`, once a
table; `NAME` is a name of your own. For worked examples see the [README](../README.md).
"""
_WORDS: dict[Any, str] = {
    str: "text", int: "whole number", float: "number", bool: "true or false", datetime: "instant (ISO 8601)",
}  # fmt: skip
_BOUNDS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"), ("multiple_of", "multiple of"))


def render() -> str:
    """Return the whole page."""
    homes: dict[type[BaseModel], str] = {RunConfig: ""}
    for path, model in _tables("", RunConfig):
        homes.setdefault(model, path)
    return "\n".join([_HEAD, *(_section(path, model, homes) for model, path in homes.items())])


def _tables(prefix: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield (dotted key, type) of every table below a table, in the order of the fields."""
    for name, field in _keys(model):
        for inner in _models_in(field.annotation):
            path = f"{prefix}{name}{_step(field.annotation)}"
            yield path, inner
            yield from _tables(f"{path}.", inner)


def _keys(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    return [(field.alias or name, field) for name, field in model.model_fields.items()]


def _section(path: str, model: type[BaseModel], homes: Homes) -> str:
    """Return a heading, the type's own sentence and the table of its keys."""
    title = f"`{path}`" if path else "Top level"
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    rows += [_row(name, field, homes) for name, field in _keys(model)]
    return f"## {title}\n\n{_sentence(model)}\n\n" + "\n".join(rows) + "\n"


def _row(name: str, field: FieldInfo, homes: Homes) -> str:
    inner = _models_in(field.annotation)
    meaning = field.description or (_sentence(inner[0]) if inner else "")
    kind = _kind(field.annotation) + _bounds(field)
    if inner:
        table = homes[inner[0]]
        link = f"[`{table}`](#{_anchor(table)})"
        shape = get_origin(_plain(field.annotation))
        kind = f"list of {link}" if shape is tuple else f"table of {link}" if shape is dict else link
    cells = (f"`{name}`", kind, _default(field, is_table=bool(inner)), meaning.rstrip("."))
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _anchor(path: str) -> str:
    return "".join(letter for letter in path.lower() if letter.isalnum() or letter in "-_")


def _step(annotation: Any) -> str:
    """Return what is added to a key whose value is a table of tables: their names are the user's."""
    return ".NAME" if get_origin(_plain(annotation)) is dict else ""


def _sentence(model: type[BaseModel]) -> str:
    text = " ".join((model.__doc__ or "").split("\n\n")[0].split())
    text = re.sub(r"^\[\w+\]: |: \[\w+\](?=\.$)", "", text)  # the heading names the table already
    return text[:1].upper() + text[1:]


def _plain(annotation: Any) -> Any:
    """Return the annotation without Optional and Annotated."""
    if get_origin(annotation) in (Union, UnionType):
        rest = [part for part in get_args(annotation) if part is not NoneType]
        return _plain(rest[0]) if len(rest) == 1 else annotation
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _kind(annotation: Any) -> str:
    """Return a type in words."""
    plain, parts = _plain(annotation), get_args(_plain(annotation))
    if get_origin(plain) is Literal:
        return " or ".join(f"`{json.dumps(part)}`" for part in parts)
    if get_origin(plain) in (Union, UnionType):
        return " or ".join(_kind(part) for part in parts if part is not NoneType)
    if get_origin(plain) is tuple:
        inner = _kind(parts[0])
        return f"list of ({inner})" if " or " in inner else f"list of {inner}"
    if get_origin(plain) is dict:
        return f"table of {_kind(parts[1])}"
    if isinstance(plain, type) and issubclass(plain, Enum):
        return " or ".join(f"`{json.dumps(member.value)}`" for member in plain)
    return _WORDS.get(plain, getattr(plain, "__name__", str(plain)))


def _bounds(field: FieldInfo) -> str:
    found = [
        f", {word} {getattr(rule, name)}"
        for name, word in _BOUNDS
        for rule in field.metadata
        if getattr(rule, name, None) is not None
    ]
    return "".join(found)


def _default(field: FieldInfo, *, is_table: bool) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see there"
    return "-" if value is None or (is_table and not value) else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    """Return a default as one would write it in TOML."""
    if isinstance(value, Enum):
        return _toml(value.value)
    if isinstance(value, BaseModel):
        return _toml(value.model_dump(exclude_defaults=True))
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(part) for part in value) + "]"
    if isinstance(value, dict):
        inside = ", ".join(f"{json.dumps(key) if '.' in key else key} = {_toml(part)}" for key, part in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return json.dumps(value)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
