"""`kgrec doctor`: a check of the installation that names each remedy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from packaging.requirements import Requirement

from pipelines import show

_FREE_GB = 2.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str
    remedy: str = ""


def examine(workspace: str, *, as_json: bool) -> int:
    """Look at Python, packages, the folder names that shadow packages, the workspace and the disk; 1 on any fault."""
    findings = [_python(), *_packages(), _shadow(), *_workspace(Path(workspace))]
    if as_json:
        show.as_json({"ok": all(f.ok for f in findings), "checks": [asdict(f) for f in findings]})
    else:
        for finding in findings:
            click.echo(f"{'ok   ' if finding.ok else 'FAULT'} {finding.what}: {finding.found}")
            if not finding.ok:
                click.echo(f"      remedy: {finding.remedy}")
    return 0 if all(finding.ok for finding in findings) else 1


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 11), version, "use Python 3.11 or newer")


def _packages() -> list[Finding]:
    findings = []
    for text in importlib.metadata.requires("kgrec") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(requirement.name, False, "not installed", f"pip install '{text}'"))
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        findings.append(Finding(requirement.name, fits, f"{version} (wants {requirement.specifier})",
                                f"pip install '{requirement.name}{requirement.specifier}'"))  # fmt: skip
    return findings


def _shadow() -> Finding:
    spec = importlib.util.find_spec("mlflow")
    origin = spec.origin if spec is not None else None
    real = origin is not None and ("site-packages" in origin or "dist-packages" in origin)
    return Finding("mlflow", real, str(origin), "remove mlflow/__init__.py from the working folder")


def _workspace(path: Path) -> list[Finding]:
    parent = path if path.exists() else path.resolve().parent
    writable = os.access(parent, os.W_OK)
    free = shutil.disk_usage(parent).free / 1e9 if parent.exists() else 0.0
    return [
        Finding("workspace", writable, str(path), "make the folder writable or name another with --workspace"),
        Finding("disk", free >= _FREE_GB, f"{free:.1f} GB free", f"free {_FREE_GB:.0f} GB"),
        Finding("cores", True, str(len(os.sched_getaffinity(0)))),
    ]
