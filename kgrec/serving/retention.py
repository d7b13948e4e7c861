"""Which versions and artifacts stay: the served, what a rollback reaches, the newest, and what they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from kgrec.artifacts import Artifact
from kgrec.serving.versions import Registry, VersionRecord


class RetentionConfig(BaseModel):
    """What `kgrec prune` leaves; nothing goes by itself unless `automatic`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    versions: int = Field(
        default=10,
        ge=1,
        description="versions of each name whose files stay, the newest, >= 1; the promoted one stays too",
    )
    rollbacks: int = Field(default=3, ge=0, description="how many rollbacks in a row stay possible, >= 0")
    days: float = Field(
        default=30.0, ge=0,
        description="stage artifacts, checkpoints and reports that no kept version needs go when older, in days >= 0",
    )  # fmt: skip
    run_days: float = Field(
        default=365.0, ge=0,
        description="runs (record, report, MLflow's run, and feature tables that only they read) go when older, in "
        "days >= 0; never the newest of a name, nor one whose version stays",
    )  # fmt: skip
    automatic: bool = Field(default=False, description="whether each scheduled run ends with it")


def kept_versions(registry: Registry, config: RetentionConfig) -> set[str]:
    """Return the numbers of the versions whose files stay."""
    back = registry.served_before[len(registry.served_before) - min(config.rollbacks, len(registry.served_before)) :]
    kept = {*back, *([registry.promoted] if registry.promoted else [])}
    by_name: dict[str, list[VersionRecord]] = {}
    for record in registry.versions:
        if not record.removed:
            by_name.setdefault(record.name, []).append(record)
    return kept | {record.version for records in by_name.values() for record in records[-config.versions :]}


def needed_by(artifacts: Mapping[Path, Artifact], keys: set[str]) -> set[Path]:
    """Return the folders of the versions with these keys, and of all that they were made from."""
    by_digest: dict[str, list[Path]] = {}
    for path, artifact in artifacts.items():
        by_digest.setdefault(artifact.digest, []).append(path)
    needed: set[Path] = set()
    ahead = [path for path, artifact in artifacts.items() if artifact.kind == "version" and artifact.key in keys]
    while ahead:
        path = ahead.pop()
        if path not in needed:
            needed.add(path)
            ahead += [source for digest in artifacts[path].inputs.values() for source in by_digest.get(digest, [])]
    return needed
