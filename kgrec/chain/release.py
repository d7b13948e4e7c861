"""From a judged model to a served one: the version, the gate, the registry, MLflow and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from kgrec import columns as c
from kgrec.artifacts import Artifact, fingerprint, write_atomically
from kgrec.chain.candidate import Made, gate_rules, judge_candidate
from kgrec.chain.context import Meter, Run
from kgrec.chain.judge import BASELINE_FILE, METRICS
from kgrec.chain.learn import HISTORY
from kgrec.chain.reporting import write_run_report
from kgrec.features.tables import TABLE
from kgrec.serving import versions
from kgrec.serving.gate import Verdict
from kgrec.serving.package import write_version
from kgrec.serving.versions import VersionRecord
from kgrec.tracking import RunRecord, Tracking

_SAMPLE_USERS: Final = 5


@dataclass(frozen=True)
class Released:
    """What became of a run. version is empty where nothing can be served (a graph without interactions)."""

    run_id: str
    version: str
    promoted: bool
    verdict: Verdict
    report: Path


def release(run: Run, made: Made) -> Released:
    """Let the gate decide, register the version, promote it when it passed, log the run and write the report.

    Every step can be repeated: a run that was killed here continues where it stopped. A run that ended before is
    read back; it promotes nothing again, so that a rollback by hand stands.
    """
    meter = Meter()
    run.tell("promote")("started")
    key = run_key(run, made)
    record_path = run.workspace.runs / f"{key[:20]}.json"
    if record_path.exists() and not _files_went(run, record_path):
        released = _read_back(run, record_path)
        run.note("promote", meter.stop(cached=True))
        return released
    tracking = Tracking(run.workspace)
    run_id = tracking.open_run(key, run.config.name)
    figures, baselines = json.loads(made.evaluated.file(METRICS).read_text()), read_baselines(made.evaluated)
    version, verdict = "", Verdict(True, ("nothing to serve: the data has no interactions",))
    if made.index is not None:
        version, verdict = _register(run, made, run_id, figures, baselines)
    history = json.loads(made.trained.file(HISTORY).read_text())
    with ThreadPoolExecutor(1, thread_name_prefix="kgrec-logs-model") as beside:  # it copies files, mostly
        logged = beside.submit(_log_version, run, tracking, run_id, version) if version else None
        report = write_run_report(run, made.parts(), history, run_id, version, verdict, figures, baselines)
    model_id = None if logged is None else logged.result()
    _track(run, made, tracking, run_id, version, verdict, figures, report.parent, model_id)
    run.workspace.runs.mkdir(exist_ok=True)
    outcome = {"run_id": run_id, "version": version, "passed": verdict.passed, "reasons": verdict.reasons,
               "report": str(report.relative_to(run.workspace.root)), "features": _table_read(run, made)}  # fmt: skip
    write_atomically(record_path, (json.dumps(outcome, indent=1) + "\n").encode())
    run.note("promote", meter.stop(cached=False))
    return _read_back(run, record_path)


def read_baselines(evaluated: Artifact) -> dict[str, Any]:
    """Return all that was noted of each baseline: setting, validation, test, what was tried, or why it was left out."""
    baselines: dict[str, Any] = json.loads(evaluated.file(BASELINE_FILE).read_text())
    return baselines


def read_figures(evaluated: Artifact) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the model's figures by part, and the baselines' ranking figures on test by name."""
    figures: dict[str, Any] = json.loads(evaluated.file(METRICS).read_text())
    ranked = {
        name: found["test"]["ranking"]
        for name, found in read_baselines(evaluated).items()
        if "ranking" in found.get("test", {})
    }
    return figures, ranked


def run_key(run: Run, made: Made) -> str:
    """Return the fingerprint of a whole run: what was made, and the gate's rules."""
    digests = {name: artifact.digest for name, artifact in made.parts().items()}
    return fingerprint({"parts": digests, "gate": gate_rules(run), "name": run.config.name})


def _table_read(run: Run, made: Made) -> dict[str, str] | None:
    """Return which feature table the run was trained on, so that it can be read again by the run's id."""
    if made.features is None or TABLE not in made.features.facts:
        return None
    return {"name": run.config.name, "backend": run.config.features.backend.value,
            "version": str(made.features.facts[TABLE])}  # fmt: skip


def _files_went(run: Run, path: Path) -> bool:
    """Say whether the version of a run that ended before was removed by retention since."""
    record = versions.read_registry(run.workspace).find(json.loads(path.read_text())["version"])
    return record is not None and bool(record.removed)


def _read_back(run: Run, path: Path) -> Released:
    raw = json.loads(path.read_text())
    served = versions.read_registry(run.workspace).promoted
    return Released(
        raw["run_id"], raw["version"], bool(raw["version"]) and served == raw["version"],
        Verdict(raw["passed"], tuple(raw["reasons"])), run.workspace.shown / raw["report"],
    )  # fmt: skip


def _register(
    run: Run, made: Made, run_id: str, figures: Mapping[str, Any], baselines: Mapping[str, Any]
) -> tuple[str, Verdict]:
    artifact = _version_artifact(run, made)
    known = versions.read_registry(run.workspace).by_key(artifact.key)
    if known is not None:
        known = versions.register(run.workspace, known)  # its files may have gone by retention, and are there again
    else:
        verdict = judge_candidate(run, made, artifact, figures, baselines)
        known = versions.register(
            run.workspace,
            VersionRecord(
                "", run.config.name, artifact.key, run_id, datetime.now(UTC).isoformat("T", "seconds"),
                verdict.passed, verdict.reasons, figures.get(c.TEST, {}),
            ),
        )  # fmt: skip
    if known.gate_passed:
        versions.promote(run.workspace, known.version, why="the gate passed")
    return known.version, Verdict(known.gate_passed, known.gate_reasons)


def _version_artifact(run: Run, made: Made) -> Artifact:
    index = made.index
    if index is None:
        raise ValueError("a version needs an index")
    config = run.config
    settings = {"exclude_seen": config.evaluation.exclude_seen, "target": config.evaluation.target,
                "name": config.name, "gate": gate_rules(run),
                "index": config.index.model_dump(mode="json"),
                "serving": config.serving.model_dump(mode="json")}  # fmt: skip
    inputs = {"split": made.log.digest, "graph": made.graph.digest, "train": made.trained.digest,
              "index": index.digest, "evaluate": made.evaluated.digest}  # fmt: skip
    inputs |= {"refit": made.again.trained.digest} if made.again is not None else {}
    inputs |= {"features": made.features.digest} if made.features is not None else {}

    def make(out: Path) -> dict[str, Any]:
        facts = write_version(
            out, made.learned_log, made.features, made.graph, made.served, index,
            exclude_seen=config.evaluation.exclude_seen, target=config.evaluation.target, name=config.name,
            serving=config.serving,
        )  # fmt: skip
        return facts | {"index": config.index.model_dump(mode="json")}

    return run.workspace.store.build("version", inputs, settings, make)[0]


def _log_version(run: Run, tracking: Tracking, run_id: str, version: str) -> str | None:
    """Log the version's folder as a model of the run and return the model's id."""
    found = versions.require(versions.read_registry(run.workspace), version)
    return tracking.log_version(run_id, run.config.name, version, run.workspace.store.path("version", found.key))


def _track(
    run: Run, made: Made, tracking: Tracking, run_id: str, version: str, verdict: Verdict,
    figures: Mapping[str, Any], report_folder: Path, model_id: str | None,
) -> None:  # fmt: skip
    config, table = run.config, _table_read(run, made)
    record = RunRecord(
        key=run_key(run, made),
        name=config.name,
        params=config.model_dump(mode="json", exclude_none=True),
        metrics=dict(flat_figures(figures)),
        history=json.loads(made.trained.file(HISTORY).read_text()),
        dataset_name=config.name,
        dataset_digest=made.ingested.digest,
        dataset_profile={"split": made.log.facts.get("split"), "graph": made.graph.facts.get("triples")},
        tags={"kgrec.version": version, "kgrec.gate": "passed" if verdict.passed else "refused"}
        | ({f"kgrec.features.{key}": value for key, value in table.items()} if table else {}),
    )
    tracking.log_run(run_id, record, report_folder, model_id)
    tracking.finish(run_id)
    if version and versions.read_registry(run.workspace).promoted == version:
        tracking.set_promoted(config.name, version)


def flat_figures(figures: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Return every number of nested figures under its path, such as "test/ranking/ndcg@10"."""
    flat: list[tuple[str, float]] = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            flat += flat_figures(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            flat.append((f"{prefix}{name}", float(value)))
    return flat
