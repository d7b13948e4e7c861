"""Text tables before polars sees them: unpacked, hashed, checked for UTF-8 and for ragged lines, in one pass.

polars fills a short line with nulls and replaces or refuses bytes that are no UTF-8 without naming the line, so
both are looked for here, on bytes, a chunk at a time. A quote within a field that does not begin with one (a title such
as 12" Vinyl) is text to most readers and an error without a line to polars: such files are written anew for it.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from kgrec.errors import InputError, Problem

_CHUNK_BYTES: Final = 1 << 22
_LINE_LIMIT: Final = 1 << 24


def separator_of(name: str) -> str | None:
    """Return the separator that a text table's file name stands for, or None when it is no text table.

    >>> separator_of("a.csv.gz"), separator_of("a.parquet")
    (',', None)
    """
    stem = name.lower().removesuffix(".gz")
    return "," if stem.endswith(".csv") else "\t" if stem.endswith(".tsv") else None


def unpack(path: Path, scratch: Path, name: str) -> Path:
    """Return the file itself, or, when it ends in .gz, its unpacked copy in `scratch`.

    InputError when the archive is damaged or ends too early.
    """
    if not path.name.lower().endswith(".gz"):
        return path
    copy = scratch / f"unpacked-{len(list(scratch.glob('unpacked-*'))):05d}-{path.name[:-3]}"
    try:
        with gzip.open(path, "rb") as packed, copy.open("wb") as plain:
            while chunk := packed.read(_CHUNK_BYTES):
                plain.write(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        remedy = "copy or compress the file again; `gzip -t FILE` says whether it is whole"
        raise InputError(Problem(name, "the gzip archive is damaged or cut off", remedy, 1, str(error))) from None
    return copy


@dataclass(frozen=True)
class TextChecked:
    """What was seen of a text table.

    blank: the numbers (1-based, after the header) of blank records, which are no rows. plain: whether every quote
    begins, ends or is doubled within a quoted field and every line ends in a line feed, so that all parsers agree.
    """

    blank: list[int]
    plain: bool


def check_text(path: Path, separator: str, name: str) -> TextChecked:
    """Return what is to be known of a text table before it is parsed.

    Looks for what polars would not report with a line: bytes that are no UTF-8, ragged lines, an empty file.
    Raises InputError with the line (1-based, the header is line 1), the count and an example.
    """
    quoted = _check_bytes(path, name)
    _check_header(path, separator, name)
    records = _Records(separator, name)
    lines = records.fields(path) if quoted else _fields_by_count(path, separator)
    header, ragged, example = 0, 0, ""
    blank: list[int] = []
    for record, (line, fields) in enumerate(lines):
        if header == 0:
            header = fields
            if fields == 0:
                break
        elif fields == 0:
            blank.append(record)
        elif fields != header:
            ragged += 1
            example = example or f"line {line} has {fields} fields, the header has {header}"
    if header == 0:
        remedy = "write a header line first, and data below it"
        raise InputError(Problem(name, "the file is empty or its first line is blank", remedy, 1, "no header line"))
    if ragged:
        remedy = f"give every line {header} fields separated by {separator!r}; put fields that contain it in quotes"
        raise InputError(Problem(name, "ragged lines (fields differ from the header)", remedy, ragged, example))
    return TextChecked(blank, records.plain)


def written_plainly(path: Path, separator: str, scratch: Path) -> Path:
    """Return a copy in `scratch` of a checked text table, the same records in the same order, quoted by the book."""
    copy = scratch / f"plain-{len(list(scratch.glob('plain-*'))):05d}-{path.name}"
    with path.open("rb") as stream, copy.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out, delimiter=separator).writerows(csv.reader(_text(stream), delimiter=separator, strict=True))
    return copy


def _check_header(path: Path, separator: str, name: str) -> None:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        header = next(csv.reader(stream, delimiter=separator), [])
    twice = next((column for column in header if header.count(column) > 1), None)
    if twice is not None:
        remedy = "give every column its own name"
        what = f"column {twice!r} is twice in the header"
        raise InputError(Problem(name, what, remedy, header.count(twice), separator.join(header)[:200]))


def _chunks(path: Path) -> Iterator[bytes]:
    """Chunks that end at a line's end."""
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk + stream.readline(_LINE_LIMIT)


def _check_bytes(path: Path, name: str) -> bool:
    """Raise on the first byte that is no UTF-8; say whether the file holds quotes."""
    lines, quoted = 0, False
    for chunk in _chunks(path):
        try:
            chunk.decode("utf-8")
        except UnicodeDecodeError as error:
            line = lines + chunk.count(b"\n", 0, error.start) + 1
            begin = chunk.rfind(b"\n", 0, error.start) + 1
            end = chunk.find(b"\n", error.start)
            text = chunk[begin : end if end >= 0 else None][:80]
            problem = Problem(
                name, f"line {line} is not valid UTF-8", "save the file as UTF-8 (`iconv -f LATIN1 -t UTF-8`)",
                sum(_is_bad(piece) for piece in chunk.split(b"\n")), f"line {line}: {text!r}",
            )  # fmt: skip
            raise InputError(problem) from None
        lines += chunk.count(b"\n")
        quoted = quoted or b'"' in chunk
    return quoted


def _is_bad(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _fields_by_count(path: Path, separator: str) -> Iterator[tuple[int, int]]:
    """(line, fields) of each line, 0 fields when it is blank, for files without quotes."""
    mark, line = separator.encode(), 0
    for chunk in _chunks(path):
        for text in chunk.removesuffix(b"\n").split(b"\n"):
            line += 1
            yield line, text.count(mark) + 1 if text not in (b"", b"\r") else 0


def _text(stream: IO[bytes]) -> IO[str]:
    csv.field_size_limit(_LINE_LIMIT)
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


class _Records:
    """The records of a file with quotes: slower than counting separators, and right."""

    def __init__(self, separator: str, name: str) -> None:
        self.separator, self.name, self.plain = separator, name, True
        bare, quoted, mark = rf'[^"\r\n{separator}]*+', r'"(?:[^"]|"")*+"', re.escape(separator)
        self._by_the_book = re.compile(f"(?:{quoted}|{bare})(?:{mark}(?:{quoted}|{bare}))*+\r?\n?")
        self._lines: list[str] = []

    def fields(self, path: Path) -> Iterator[tuple[int, int]]:
        """Yield (line, fields) of each record, 0 fields when it is blank; say in `plain` whether all parsers agree.

        InputError, with the line where the record begins, for a quote that is never closed or has text behind its end.
        """
        with path.open("rb") as stream:
            reader, ended = csv.reader(self._kept(_text(stream)), delimiter=self.separator, strict=True), 0
            try:
                for record in reader:
                    ended = reader.line_num
                    self._look()
                    yield ended, len(record)
            except csv.Error as error:
                fault = "is never closed" if "end of data" in str(error) else "has text behind its end"
                remedy = "close the quote, and double quotes that are part of the text"
                where = f"the record that begins in line {ended + 1}: {error}"
                raise InputError(Problem(self.name, f"a quote {fault}", remedy, 1, where)) from None

    def _kept(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            self._lines.append(line)
            yield line

    def _look(self) -> None:
        record = "".join(self._lines)
        self._lines.clear()
        if '"' in record or record.endswith("\r"):
            self.plain &= not record.endswith("\r") and self._by_the_book.fullmatch(record) is not None
