"""Gathers what the report shows: figures, data card, examples with reasons, costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from kgrec.artifacts import Artifact
from kgrec.chain.context import Run, peak_rss_mb
from kgrec.chain.details import read_details
from kgrec.chain.importance import read_importance, shown
from kgrec.chain.increments import is_increment
from kgrec.chain.measured import against_baselines, ranking_intervals
from kgrec.evaluation.report import Example, ReportData, headline_metric, write_report
from kgrec.evaluation.report_words import decimals
from kgrec.privacy import pseudonym, salt_of
from kgrec.seeds import numpy_generator
from kgrec.serving.fidelity import history_fidelity, probes
from kgrec.serving.gate import Verdict
from kgrec.serving.recommend import Version, open_version
from kgrec.serving.standing import Standing
from kgrec.serving.versions import read_registry, require

_EXAMPLES: Final = 3
_SHOWN_HISTORY: Final = 5
_PROBES: Final = 20
REPORT: Final = "report.html"


def write_run_report(
    run: Run, parts: Mapping[str, Artifact], history: list[Mapping[str, float]], run_id: str, version: str,
    verdict: Verdict, figures: Mapping[str, Any], baselines: Mapping[str, Any],
) -> Path:  # fmt: skip
    """Write the report of a run and return the path of its HTML file; Markdown and JSON lie beside it.

    parts: the stages' artifacts by name. version is empty where nothing is served.
    """
    registry = read_registry(run.workspace)
    examples: list[Example] = []
    believed: dict[str, Any] = {}
    if version:
        record = require(registry, version)
        served = open_version(run.workspace.store.path("version", record.key), version, verify=False)  # built here
        salt = None if run.config.privacy.user_ids else salt_of(run.workspace)
        short = is_increment(parts["train"])
        examples = _examples(served, salt, 1 if short else _EXAMPLES)
        believed = {} if short else _fidelity(served, run.config.seed)
    ranked = {name: found["test"]["ranking"] for name, found in baselines.items() if "ranking" in found.get("test", {})}
    evaluated, seed = parts["evaluate"], run.config.seed
    headline = headline_metric(figures.get("test", {}).get("ranking", {}))
    data = ReportData(
        name=run.config.name,
        run_id=run_id,
        version=version or None,
        promoted=registry.promoted == version if version else None,
        reasons=verdict.reasons,
        metrics=figures,
        baselines=ranked,
        intervals=ranking_intervals(evaluated, seed),
        against=against_baselines(evaluated, list(ranked), headline, seed) if headline and ranked else {},
        baseline_settings={name: found["setting"] for name, found in baselines.items() if "setting" in found},
        left_out=_left_out(parts, baselines) | read_details(evaluated).get("left_out", {}),
        details=read_details(evaluated),
        data_card=_data_card(parts) | ({"Explanations": believed} if believed else {}),
        warnings=[*parts["split"].facts.get("split", {}).get("warnings", []), *_importance(parts)[1]],
        training=history,
        relations=parts["train"].facts.get("relations", {}),
        examples=examples,
        stages={name: asdict(report) for name, report in run.reports.items()},
        peak_rss_mb=max([peak_rss_mb(), *(report.peak_rss_mb for report in run.reports.values())]),
        config_text=json.dumps(run.config.model_dump(mode="json", exclude_none=True), indent=2),
    )
    folder = run.workspace.reports / run_id
    folder.mkdir(parents=True, exist_ok=True)
    write_report(folder / REPORT, data)
    return folder / REPORT


def _fidelity(version: Version, seed: int) -> dict[str, Any]:
    """Return how far reasons can be believed, in words: the score without the history item that a reason names."""
    generator = numpy_generator(seed, "fidelity")
    asked = probes(version, version.users.entries.head(_PROBES).to_list(), most_paths=0)
    facts = history_fidelity(version, asked, generator).facts(generator)
    words = {
        "fall_without_the_named": "fall of the score without the history item that a reason names",
        "fall_without_a_random_one": "without a random one",
        "named_falls_further": "share where the named one tells more",
    }  # fmt: skip
    return {words.get(name, name): value for name, value in facts.items()} if facts["probes"] else {}


def _examples(version: Version, salt: str | None, most: int) -> list[Example]:
    """Return what the first few users would get; they are named by a hash where there is a salt."""
    users = [user for user in version.users.entries.head(200) if version.standing(user) is Standing.TRAINED]
    examples = []
    for user in users[:most]:
        history = version.history(user)
        had = [title or item for item, title in history.tail(_SHOWN_HISTORY).iter_rows()]
        answer = version.recommend([user], k=10, explain=True)
        lines = [
            (row["title"] or row["item"], float(row["score"]), row["reason"]) for row in answer.iter_rows(named=True)
        ]
        examples.append(Example(user if salt is None else pseudonym(user, salt), had[::-1], lines))
    return examples


def _left_out(parts: Mapping[str, Artifact], baselines: Mapping[str, Any]) -> dict[str, str]:
    left = {f"baseline {name}": found["left_out"] for name, found in baselines.items() if "left_out" in found}
    features = parts.get("features")
    left |= {f"feature {name}": why for name, why in (features.facts.get("left_out", {}) if features else {}).items()}
    for name, count in parts["ingest"].facts.get("left_out", {}).items():
        left[f"event {name}"] = f"{count:,} rows: no role names this event"
    return left


def _data_card(parts: Mapping[str, Artifact]) -> dict[str, dict[str, Any]]:
    log, graph = parts["split"].facts, parts["graph"].facts
    card: dict[str, dict[str, Any]] = {"Data": _plain(parts["ingest"].facts)}
    if "split" in log:
        split = log["split"]
        card["Split"] = {"how": split["label"], **split["counts"], **split.get("boundaries", {})}
    if graph.get("triples"):
        relations = sorted(graph["triples_per_relation"].items(), key=lambda one: (-one[1], one[0]))
        card["Knowledge graph"] = _plain(graph) | {
            "largest hubs": ", ".join(f"{hub['label'] or hub['id']} ({hub['degree']:,})" for hub in graph["hubs"]),
            "largest relations": ", ".join(f"{name} ({count:,})" for name, count in relations[:5]),
        }
    card |= _tower_cards(parts["train"].facts) if "train" in parts else {}
    features = parts.get("features")
    if features is not None:
        card["Features"] = {
            "numeric": features.facts["num_numeric"],
            "categorical": len(features.facts["cardinalities"]),
            **_importance(parts)[0],
        }
    return card


def _tower_cards(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what training says of the towers: calibration by label, and each task's gates, the widest open first."""
    cards: dict[str, dict[str, Any]] = {}
    if kept := facts.get("towers"):
        cards["Towers beside the other tasks, and alone"] = {
            name.replace("_", " "): round(value, 4) if isinstance(value, float) else value
            for name, value in kept.items()
        }
    for head, fitted in facts.get("calibration", {}).items():
        shown = {name.replace("_", " "): round(value, 4) for name, value in fitted.items()}
        cards[f"Calibration of {head} on validation"] = shown
    for head, opened in facts.get("feature_gates", {}).items():
        ranked = sorted(opened.items(), key=lambda gate: (-gate[1], gate[0]))
        cards[f"Feature gates of {head}"] = {name: round(value, 3) for name, value in ranked}
    return cards


def _importance(parts: Mapping[str, Artifact]) -> tuple[dict[str, str], list[str]]:
    return shown(read_importance(parts["evaluate"]) if "evaluate" in parts else {})


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that are a number or a word; nested counts are written out."""
    plain: dict[str, Any] = {}
    for name, value in facts.items():
        label = name.replace("_", " ")
        if isinstance(value, bool | int | float | str):
            plain[label] = value
        elif isinstance(value, Mapping) and value and all(isinstance(v, int | float | str) for v in value.values()):
            shown = {k: v for k, v in value.items() if not (isinstance(v, str) and len(v) > 40)}
            if shown and len(shown) <= 12:
                plain[label] = ", ".join(f"{k}: {decimals(v)}" for k, v in shown.items())
    return plain
