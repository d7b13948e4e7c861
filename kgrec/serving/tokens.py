"""Who may ask: bearer tokens, kept as SHA-256 hashes, compared in constant time.

A token is 256 random bits, so a plain hash of it can be neither inverted nor guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from kgrec.errors import InputError, Problem

ENVIRONMENT: Final = "KGREC_TOKENS"
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_EXAMPLE: Final = "batch 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 2027-01-31"


@dataclass(frozen=True)
class TokenHash:
    """One token: who has it, its SHA-256 in hex, and the instant from which it no longer counts."""

    name: str
    sha256: str
    expires: datetime | None = None


class Tokens:
    """The tokens that count. Made by `read`; an empty one lets nobody in."""

    def __init__(self, known: Iterable[TokenHash]) -> None:
        self._known = tuple(known)

    def __len__(self) -> int:
        return len(self._known)

    def owner(self, token: str, now: datetime | None = None) -> str | None:
        """Return the name of the token's owner, or None for a wrong or expired one.

        All hashes are compared, whichever fits, so that the time taken says nothing.
        """
        given = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        now = now or datetime.now(UTC)
        found = None
        for known in self._known:
            same = hmac.compare_digest(given, known.sha256)
            if same and (known.expires is None or now < known.expires):
                found = known.name
        return found


def read_tokens(text: str, where: str) -> Tokens:
    """Read lines of `NAME SHA256 [EXPIRES]`; blank lines and what follows `#` do not count.

    EXPIRES is an ISO 8601 date or instant, UTC where it names no zone; from then on the token is refused. A semicolon
    ends a line, too, for environment variables. InputError names every line that cannot be read.
    """
    known, problems = [], []
    seen: set[str] = set()
    for number, raw in enumerate(text.replace(";", "\n").splitlines(), 1):
        words = raw.partition("#")[0].split()
        if not words:
            continue
        fault = _fault(words, seen)
        if fault:
            problems.append(Problem(f"{where} line {number}", fault, f"write for example: {_EXAMPLE}"))
            continue
        seen.add(words[0])
        known.append(TokenHash(words[0], words[1].lower(), _instant(words[2]) if len(words) == 3 else None))
    if problems:
        raise InputError(problems)
    return Tokens(known)


def read_token_file(path: Path) -> Tokens:
    """Read a file of tokens; InputError when it is missing, unreadable or holds none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        remedy = f"make it with: kgrec token NAME --tokens {path}"
        raise InputError(Problem(str(path), f"tokens cannot be read: {reason}", remedy)) from None
    tokens = read_tokens(text, str(path))
    if not len(tokens):
        raise InputError(Problem(str(path), "no token in it", f"add one with: kgrec token NAME --tokens {path}"))
    return tokens


def new_token(path: Path, name: str, days: float | None = None, now: datetime | None = None) -> str:
    """Make a token, add its hash to the file and return the token, which is written nowhere.

    The file is made readable to its owner only. InputError when the name is unfit or taken.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    read_tokens(text, str(path))
    token = secrets.token_urlsafe(32)
    words = [name, hashlib.sha256(token.encode()).hexdigest()]
    if days is not None:
        expires = (now or datetime.now(UTC)) + timedelta(days=days)
        words.append(expires.isoformat("T", "seconds"))
    taken = {line.split()[0] for line in text.splitlines() if line.partition("#")[0].split()}
    if not _NAME.fullmatch(name) or name in taken:
        what = "a token of this name is there" if name in taken else "no name for a token"
        raise InputError(Problem(f"token {name!r}", what, "take another of letters, digits, . _ -"))
    line = " ".join(words) + "\n"
    if text and not text.endswith("\n"):
        line = "\n" + line
    if not path.exists():
        path.touch(mode=0o600)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(line)
    return token


def _fault(words: list[str], seen: set[str]) -> str | None:
    if len(words) not in (2, 3):
        return f"{len(words)} words where NAME SHA256 [EXPIRES] were expected"
    if not _NAME.fullmatch(words[0]):
        return "no name for a token"
    if words[0] in seen:
        return "a second token of this name"
    if not _HASH.fullmatch(words[1].lower()):
        return "the second word is not a SHA-256 of 64 hex digits (is it the token itself? then make a new one)"
    if len(words) == 3 and _instant(words[2]) is None:
        return "the third word is not an ISO 8601 date or instant"
    return None


def _instant(text: str) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
