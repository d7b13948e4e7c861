"""Answers that a version gave before, by the words that asked for them.

A version never changes, so the same words get the same answer from it for as long as it is served.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

Asked = tuple[str, bytes]
"""A path and a body, as they were sent."""

_LONGEST_BODY: Final = 1024
_OWN_BYTES: Final = 300


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer's body, and what it rests on where that is counted."""

    body: bytes
    based_on: str | None


class Remembered:
    """Keeps answers within so many bytes; the one that nobody asked for longest goes first.

    A body of more than 1,024 bytes is asked once: it is not kept. With 0 bytes nothing is.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._kept: OrderedDict[Asked, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, asked: Asked) -> Kept | None:
        """Return the answer given before; None where there is none."""
        found = self._kept.get(asked)
        if found is not None:
            self._kept.move_to_end(asked)
        return found

    def latest(self) -> list[Asked]:
        """Return what was asked, the last first."""
        return list(self._kept)[::-1]

    def keep(self, asked: Asked, answer: Kept) -> None:
        """Keep an answer, and let others go where that is too much."""
        if len(asked[1]) > _LONGEST_BODY:
            return
        if (before := self._kept.pop(asked, None)) is not None:
            self._bytes -= _size(asked, before)
        self._kept[asked] = answer
        self._bytes += _size(asked, answer)
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._kept.popitem(last=False))


def _size(asked: Asked, answer: Kept) -> int:
    """Return about how many bytes an answer takes with its place in the table."""
    return len(asked[1]) + len(answer.body) + _OWN_BYTES
