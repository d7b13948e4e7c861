"""Errors for people: where, what, how many, an example, the remedy; all problems of an input at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

_DISK: Final = ("No space left on device", "Disk quota exceeded", "disk is full", "Read-only file system",
                "readonly database")  # fmt: skip
_KEPT: Final = "kept for who runs the command ([privacy] user_ids)"
_ROOM: Final = (
    "free space (`kgrec prune` removes old versions), or name another folder with --workspace; then run again"
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with what the user brought.

    where: file, table or config key. what: the fault in plain words. remedy: what to do about it.
    count: how many rows or keys are affected, where that can be counted. example: one offending value or row.
    """

    where: str
    what: str
    remedy: str
    count: int | None = None
    example: str | None = None

    def __str__(self) -> str:
        """Return the problem as indented lines.

        >>> print(Problem("log.csv", "blank user", "fill it in", count=2, example="line 3"))
        log.csv: blank user (2 times)
          example: line 3
          remedy:  fill it in
        """
        times = "" if self.count is None else f" ({self.count:,} time{'' if self.count == 1 else 's'})"
        lines = [f"{self.where}: {self.what}{times}"]
        if self.example is not None:
            lines.append(f"  example: {self.example}")
        lines.append(f"  remedy:  {self.remedy}")
        return "\n".join(lines)


class KgrecError(Exception):
    """Anything kgrec says on purpose. `exit_status` is what the command line ends with."""

    exit_status = 1

    def for_others(self, *, examples: bool = False) -> str:
        """Return what a server's states and a webhook may say, where others read along. examples: also of the input."""
        return str(self)


class InputError(KgrecError):
    """The user's input is wrong. Carries every problem that was found, not just the first."""

    exit_status = 2

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        if not self.problems:
            raise ValueError("an InputError needs at least one problem")
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process have the problems: an exception is made anew of its words otherwise."""
        return type(self), (self.problems,)

    def for_others(self, *, examples: bool = False) -> str:
        """Return all problems; without examples, which may be rows of people, unless they are allowed.

        >>> print(InputError(Problem("log.csv", "blank item", "fill it in", 1, "user ann")).for_others())
        log.csv: blank item (1 time)
          example: kept for who runs the command ([privacy] user_ids)
          remedy:  fill it in
        """
        if examples:
            return str(self)
        return "\n".join(str(replace(one, example=_KEPT) if one.example else one) for one in self.problems)


class UnreachableError(InputError):
    """A source did not answer; it may do so later, so a scheduled run tries again."""


class GateRefusedError(KgrecError):
    """A gate refused a version. `reasons` says why, one sentence each."""

    exit_status = 3

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("the gate refused this version:\n" + "\n".join(f"  - {r}" for r in self.reasons))

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process have the reasons."""
        return type(self), (self.reasons,)


class StorageError(KgrecError):
    """The disk is full or may not be written; what was whole before still is."""

    @classmethod
    def told(cls, how: str) -> StorageError:
        """Return the error with its remedy; how: in the words of whoever met it."""
        return cls(f"the disk is full or may not be written ({how})\n  remedy:  {_ROOM}")


def storage_fault(fault: BaseException) -> StorageError | None:
    """Return what people should know when a fault, or what led to it, is the disk's; None for any other.

    Libraries tell of it in their own types, so the words of the operating system count, too.

    >>> print(storage_fault(OSError(28, "No space left on device")))
    the disk is full or may not be written (No space left on device)
      remedy:  free space (`kgrec prune` removes old versions), or name another folder with --workspace; then run again
    >>> storage_fault(ValueError("no"))
    """
    seen: BaseException | None = fault
    while seen is not None:
        found = next((words for words in _DISK if words.lower() in str(seen).lower()), None)
        if found is not None:
            return StorageError.told(found)
        seen = seen.__cause__ or seen.__context__
    return None


class DivergedError(KgrecError):
    """A loss is no longer a finite number, so that training cannot go on."""


class ArtifactError(KgrecError):
    """A stored artifact is damaged, incomplete, or does not belong to the others it is used with."""


class WorkspaceBusyError(KgrecError):
    """Another kgrec process holds the workspace."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice most like `word`, or None when nothing is close.

    >>> nearest("epoch", ["epochs", "seed"])
    'epochs'
    """
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return close[0] if close else None
