"""Immutable artifacts: a folder of files with a manifest, written aside and renamed into place.

An artifact's key is the fingerprint of all that went into it (inputs, config, code), so that equal inputs find
what is already there. Its digest is the fingerprint of its content; what is built from it is keyed by that.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from kgrec.errors import ArtifactError

MANIFEST: Final = "manifest.json"
SCHEMA: Final = 1
_CHUNK_BYTES: Final = 1 << 20


def canonical_json(value: Any) -> str:
    """Return JSON text that is equal for equal values: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of a JSON-like value, 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@cache
def code_version() -> str:
    """Return a fingerprint of kgrec's own source, so that changed code never reuses what older code made."""
    root = Path(__file__).parent
    return fingerprint({str(path.relative_to(root)): hash_file(path) for path in sorted(root.rglob("*.py"))})[:16]


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk. `files` maps each file's name to its SHA-256; `facts` is what the maker noted."""

    path: Path
    kind: str
    key: str
    inputs: Mapping[str, str]
    config: Mapping[str, Any]
    files: Mapping[str, str]
    facts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """The fingerprint of the content: same files and facts, same digest, whatever led to them."""
        return fingerprint({"kind": self.kind, "files": dict(self.files), "facts": dict(self.facts)})

    def file(self, name: str) -> Path:
        """Return the path of a file of this artifact; ArtifactError when it holds no such file."""
        if name not in self.files:
            raise ArtifactError(f"{self.kind} artifact {self.path.name} holds no file {name!r}: {sorted(self.files)}")
        return self.path / name

    def has(self, name: str) -> bool:
        """Say whether the artifact holds the file."""
        return name in self.files

    def verify(self) -> None:
        """Read every byte and compare with the manifest; ArtifactError names each file that differs."""
        faults = []
        for name, expected in sorted(self.files.items()):
            path = self.path / name
            if not path.is_file():
                faults.append(f"{path}: missing")
            elif hash_file(path) != expected:
                faults.append(f"{path}: content differs from its manifest (damaged or edited)")
        strangers = {str(p.relative_to(self.path)) for p in self.path.rglob("*") if p.is_file()}
        faults += [f"{self.path / name}: not in the manifest" for name in sorted(strangers - {*self.files, MANIFEST})]
        if faults:
            raise ArtifactError(
                f"{self.kind} artifact is damaged:\n  "
                + "\n  ".join(faults)
                + f"\n  remedy:  delete the folder {self.path} and run again; it will be rebuilt"
            )


def load_artifact(path: Path, kind: str | None = None, *, verify: bool = True) -> Artifact:
    """Read an artifact's manifest and, unless told otherwise, check every byte of its files.

    Raises ArtifactError, naming the file, when anything is missing, changed or of another kind.
    """
    manifest_path = path / MANIFEST
    try:
        text = manifest_path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ArtifactError(f"{manifest_path}: missing; {path} is no kgrec artifact") from None
    except UnicodeDecodeError:
        raise ArtifactError(f"{manifest_path}: content is damaged (not UTF-8)") from None
    try:
        raw = json.loads(text)
        body, seal = raw["body"], raw["seal"]
        damaged = not isinstance(body, dict) or fingerprint(body) != seal or text != _manifest_text(body)
    except (json.JSONDecodeError, KeyError, TypeError):
        damaged = True
    if damaged:
        raise ArtifactError(f"{manifest_path}: content differs from its seal (damaged or edited)")
    if body["schema"] != SCHEMA:
        raise ArtifactError(f"{manifest_path}: schema {body['schema']}, this kgrec reads schema {SCHEMA}; run again")
    if kind is not None and body["kind"] != kind:
        raise ArtifactError(f"{path}: a {body['kind']!r} artifact where {kind!r} was expected")
    artifact = Artifact(path, body["kind"], body["key"], body["inputs"], body["config"], body["files"], body["facts"])
    if verify:
        artifact.verify()
    return artifact


def _manifest_text(body: Mapping[str, Any]) -> str:
    return json.dumps({"body": body, "seal": fingerprint(body)}, indent=1, sort_keys=True) + "\n"


class ArtifactStore:
    """A folder of artifacts, `root/kind/key/`. Equal keys are never built twice."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, kind: str, key: str) -> Path:
        """Return where the artifact is or would be."""
        return self.root / kind / key[:20]

    def find(self, kind: str, key: str) -> Artifact | None:
        """Return the artifact with this key, its bytes checked, or None when it was not built yet."""
        path = self.path(kind, key)
        return load_artifact(path, kind) if (path / MANIFEST).exists() else None

    def with_digest(self, kind: str, digest: str) -> Artifact | None:
        """Return an artifact of this content, its bytes checked, whatever led to it; None where there is none."""
        for path in sorted((self.root / kind).glob(f"*/{MANIFEST}")):
            found = load_artifact(path.parent, kind, verify=False)
            if found.digest == digest:
                found.verify()
                return found
        return None

    def build(
        self,
        kind: str,
        inputs: Mapping[str, str],
        config: Mapping[str, Any],
        make: Callable[[Path], Mapping[str, Any]],
    ) -> tuple[Artifact, bool]:
        """Return the artifact made from these inputs and whether it was already there.

        `make` gets an empty folder, writes its files there and returns the facts for the manifest. The folder
        is renamed into place when all is on disk: a process killed at any moment leaves either all or nothing.
        """
        key = self.key(kind, inputs, config)
        found = self.find(kind, key)
        if found is not None:
            return found, True
        final = self.path(kind, key)
        aside = self.root / ".building" / f"{kind}-{key[:20]}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        facts = json.loads(canonical_json(make(aside)))
        files = {str(p.relative_to(aside)): hash_file(p) for p in sorted(aside.rglob("*")) if p.is_file()}
        body = {
            "schema": SCHEMA, "kind": kind, "key": key, "inputs": dict(inputs), "code": code_version(),
            "config": json.loads(canonical_json(config)), "files": files, "facts": facts,
        }  # fmt: skip
        write_atomically(aside / MANIFEST, _manifest_text(body).encode())
        for path in aside.rglob("*"):
            _flush(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(final, ignore_errors=True)  # a folder without a manifest: somebody's half-deleted remains
        aside.replace(final)
        _flush(final.parent)
        return load_artifact(final, kind, verify=False), False

    @staticmethod
    def key(kind: str, inputs: Mapping[str, str], config: Mapping[str, Any]) -> str:
        """Return the fingerprint of all that goes into an artifact: kind, inputs, config and code."""
        return fingerprint({"kind": kind, "inputs": inputs, "config": config, "code": code_version(), "schema": SCHEMA})

    def sweep(self) -> None:
        """Remove what a killed process left half-built."""
        shutil.rmtree(self.root / ".building", ignore_errors=True)


def share_file(source: Path, target: Path) -> None:
    """Give a file of an artifact to another one: the same bytes on disk under a second name, where the disk can do so.

    No file of an artifact is ever changed in its place. Whoever may read the folder may read the file.
    """
    try:
        target.hardlink_to(source)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)
    else:
        target.chmod(stat.S_IMODE(target.parent.stat().st_mode) & 0o666)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with aside.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
