"""People who were forgotten: salted hashes of their ids, so that the next ingest leaves their rows out."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from kgrec.artifacts import fingerprint, write_atomically
from kgrec.columns import USER
from kgrec.errors import ArtifactError

_WITH_PEOPLE: Final = ("events.parquet", "exposures.parquet", "users.parquet")
_QUARANTINE: Final = "quarantine.parquet"
LEFT_OUT: Final = "rows_of_forgotten_people"


@dataclass(frozen=True)
class Tombstones:
    """HMAC-SHA256 of each forgotten id under a salt of the workspace. The ids themselves are nowhere.

    >>> stones = Tombstones("00").bury("ann")
    >>> stones.holds("ann"), stones.holds("bob")
    (True, False)
    """

    salt: str
    hashes: frozenset[str] = frozenset()

    @classmethod
    def load(cls, path: Path) -> Tombstones:
        """Read the file, or start an empty one with a new salt; ArtifactError when it is damaged."""
        if not path.exists():
            return cls(secrets.token_hex(32))
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            return cls(str(raw["salt"]), frozenset(map(str, raw["hashes"])))
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path}: damaged ({error})\n  remedy:  restore it from a backup") from None

    def save(self, path: Path) -> None:
        """Write the file whole."""
        write_atomically(
            path, (json.dumps({"salt": self.salt, "hashes": sorted(self.hashes)}, indent=1) + "\n").encode()
        )

    def bury(self, user: str) -> Tombstones:
        """Return tombstones that hold this id, too."""
        return Tombstones(self.salt, self.hashes | {self.hash_of(user)})

    def holds(self, user: str) -> bool:
        """Say whether this id was forgotten."""
        return self.hash_of(user) in self.hashes

    def hash_of(self, user: str) -> str:
        """Return the salted hash of an id, 64 hex digits."""
        return hmac.new(bytes.fromhex(self.salt), user.encode(), hashlib.sha256).hexdigest()

    @property
    def digest(self) -> str | None:
        """The fingerprint of what is held, None where nobody is: part of the key of an ingest."""
        return fingerprint(sorted(self.hashes)) if self.hashes else None


def leave_out(folder: Path, stones: Tombstones) -> dict[str, Any]:
    """Remove the rows of forgotten people from the tables of an ingest; return the facts that changed.

    The quarantine is emptied when somebody is held: a bad row may name anybody.
    """
    facts: dict[str, Any] = {}
    if not stones.hashes:
        return facts
    gone = 0
    for name in _WITH_PEOPLE:
        path = folder / name
        if not path.exists():
            continue
        table = pl.read_parquet(path)
        held = [user for user in table[USER].unique() if stones.holds(user)]
        kept = table.filter(~pl.col(USER).is_in(held))
        if kept.height < table.height:
            kept.write_parquet(path)
        gone += table.height - kept.height
        facts[name.removesuffix(".parquet")] = kept.height
    quarantine = folder / _QUARANTINE
    if quarantine.exists():
        pl.read_parquet(quarantine).clear().write_parquet(quarantine)
    return facts | {LEFT_OUT: gone}
