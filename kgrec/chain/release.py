"""From a judged model to a served one: the version, the gate, the registry, MLflow and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
import torch

from kgrec import columns as c
from kgrec.artifacts import Artifact, fingerprint, write_atomically
from kgrec.chain.context import Meter, Run
from kgrec.chain.judge import BASELINE_FILE, METRICS
from kgrec.chain.learn import HISTORY, chosen_tasks
from kgrec.chain.questions import Judge
from kgrec.chain.reporting import write_run_report
from kgrec.data.vocabulary import Vocabulary
from kgrec.errors import KgrecError
from kgrec.evaluation.pairs import Pairs
from kgrec.evaluation.protocol import Scorer, answer, judge_ranking, with_fallback
from kgrec.serving import versions
from kgrec.serving.gate import Verdict, judge
from kgrec.serving.package import ITEMS, USERS, write_version
from kgrec.serving.recommend import Version, open_version
from kgrec.serving.versions import VersionRecord
from kgrec.tracking import RunRecord, Tracking

_SAMPLE_USERS: Final = 5


@dataclass(frozen=True)
class Made:
    """The artifacts of one run; features and index are absent where there is nobody to recommend to."""

    ingested: Artifact
    log: Artifact
    features: Artifact | None
    graph: Artifact
    trained: Artifact
    evaluated: Artifact
    index: Artifact | None

    def parts(self) -> dict[str, Artifact]:
        """Return what there is, by stage."""
        named = {"ingest": self.ingested, "split": self.log, "features": self.features, "graph": self.graph,
                 "train": self.trained, "evaluate": self.evaluated, "index": self.index}  # fmt: skip
        return {name: artifact for name, artifact in named.items() if artifact is not None}


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
    if record_path.exists():
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
    report = write_run_report(run, made.parts(), history, run_id, version, verdict, figures, baselines)
    _track(run, made, tracking, run_id, version, verdict, figures, report.parent)
    run.workspace.runs.mkdir(exist_ok=True)
    outcome = {"run_id": run_id, "version": version, "passed": verdict.passed, "reasons": verdict.reasons,
               "report": str(report.relative_to(run.workspace.root))}  # fmt: skip
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
    return fingerprint({"parts": digests, "gate": run.config.gate.model_dump(mode="json"), "name": run.config.name})


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
    if known is None:
        verdict = _verdict(run, made, artifact, figures, baselines)
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
                "name": config.name, "gate": config.gate.model_dump(mode="json"),
                "index": config.index.model_dump(mode="json")}  # fmt: skip
    inputs = {"split": made.log.digest, "graph": made.graph.digest, "train": made.trained.digest,
              "index": index.digest, "evaluate": made.evaluated.digest}  # fmt: skip
    inputs |= {"features": made.features.digest} if made.features is not None else {}

    def make(out: Path) -> dict[str, Any]:
        facts = write_version(
            out, made.log, made.features, made.graph, made.trained, index,
            exclude_seen=config.evaluation.exclude_seen, target=config.evaluation.target, name=config.name,
        )  # fmt: skip
        return facts | {"index": config.index.model_dump(mode="json")}

    return run.workspace.store.build("version", inputs, settings, make)[0]


def _verdict(
    run: Run, made: Made, artifact: Artifact, figures: Mapping[str, Any], baselines: Mapping[str, Any]
) -> Verdict:
    fault = _load_fault(artifact)
    others = {
        name: found["test"].get("ranking", {}) for name, found in baselines.items() if "test" in found
    }  # fmt: skip
    champion = _promoted_figures(run, made)
    return judge(run.config.gate, figures.get(c.TEST, {}).get("ranking", {}), others, champion, fault)


def _load_fault(artifact: Artifact) -> str | None:
    """Load the stored version as a service would and ask it; return what went wrong."""
    try:
        version = open_version(artifact.path)
        users = version.users.entries.head(_SAMPLE_USERS).to_list()
        answered = version.recommend([*users, "\x00nobody"], k=1)
        if answered[c.SCORE].is_nan().any():
            return "a score is not a number"
        if answered.height == 0:
            return "it recommends nothing to anybody"
    except (KgrecError, OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _promoted_figures(run: Run, made: Made) -> tuple[str, Mapping[str, Any]] | None:
    """Ask the promoted version the candidate's own test question."""
    registry = versions.read_registry(run.workspace)
    record = registry.find(registry.promoted) if registry.promoted else None
    if record is None or record.name != run.config.name:
        return None
    champion = open_version(run.workspace.store.path("version", record.key), record.version)
    asker = Judge(run.config.evaluation, made.log, None, made.graph, chosen_tasks(run, made.ingested))
    question = asker.question(c.TEST)
    scorer = _scores_of(champion, made.log, question.history)
    found = judge_ranking(question, answer(question, scorer, max(run.config.evaluation.k)), run.config.evaluation)
    return record.version, found.get("ranking", {})


def _scores_of(version: Version, log: Artifact, history: Pairs) -> Scorer:
    """Return another version's scores over this log's rows; an item that it does not know is never shown."""
    items, users = Vocabulary.load(log.file(ITEMS)), Vocabulary.load(log.file(USERS))
    its_rows = version.items.rows(items.entries)
    known_I = torch.tensor(its_rows.is_not_null().to_numpy())
    its_rows_I = torch.tensor(its_rows.fill_null(0).to_numpy().astype("int64"))
    items_ID = torch.as_tensor(version.item_vectors_ID)[its_rows_I]
    popularity_I = torch.bincount(history.indices, minlength=len(items)).float().masked_fill(~known_I, float("-inf"))

    def score(rows_B: torch.Tensor) -> torch.Tensor:
        had = history.take(rows_B)
        ids = users.ids(pl.Series(rows_B.numpy()))
        bounds = had.indptr.tolist()
        histories = {
            user: its_rows_I[had.indices[start:end]][known_I[had.indices[start:end]]].numpy()
            for user, start, end in zip(ids, bounds[:-1], bounds[1:], strict=True)
        }
        scores_BI = torch.as_tensor(version.vectors_of(ids, histories)) @ items_ID.T
        blank_B = scores_BI.abs().sum(1) == 0
        scores_BI[blank_B] = popularity_I
        return scores_BI.masked_fill(~known_I, float("-inf"))

    return with_fallback(score, history, popularity_I)


def _track(
    run: Run, made: Made, tracking: Tracking, run_id: str, version: str, verdict: Verdict,
    figures: Mapping[str, Any], report_folder: Path,
) -> None:  # fmt: skip
    config = run.config
    record = RunRecord(
        key=run_key(run, made),
        name=config.name,
        params=config.model_dump(mode="json", exclude_none=True),
        metrics=dict(_flat_figures(figures)),
        history=json.loads(made.trained.file(HISTORY).read_text()),
        dataset_name=config.name,
        dataset_digest=made.ingested.digest,
        dataset_profile={"split": made.log.facts.get("split"), "graph": made.graph.facts.get("triples")},
        tags={"kgrec.version": version, "kgrec.gate": "passed" if verdict.passed else "refused"},
    )
    tracking.log_run(run_id, record, report_folder)
    if version:
        found = versions.require(versions.read_registry(run.workspace), version)
        folder = run.workspace.store.path("version", found.key)
        tracking.log_version(run_id, config.name, version, folder)
        if versions.read_registry(run.workspace).promoted == version:
            tracking.set_promoted(config.name, version)
    else:
        tracking.finish(run_id)


def _flat_figures(figures: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    flat: list[tuple[str, float]] = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            flat += _flat_figures(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            flat.append((f"{prefix}{name}", float(value)))
    return flat
