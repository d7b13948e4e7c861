"""The chain asks for the importance of features on validation, and the report says what it found."""

from __future__ import annotations

import json
from pathlib import Path

from kgrec.artifacts import load_artifact
from kgrec.chain.importance import read_importance
from kgrec.stages import RunResult


def test_the_run_keeps_the_importance_of_every_feature_and_reports_the_most_important(tiny: RunResult) -> None:
    evaluated, features = (
        load_artifact(next((Path(tiny.workspace) / "artifacts" / stage).iterdir()))
        for stage in ("evaluate", "features")
    )
    found = read_importance(evaluated)
    encoded = {name.partition(":missing")[0] for name in features.facts["numeric"]} | {*features.facts["categorical"]}
    assert set(found["auc_falls"]) == encoded
    assert any(abs(fall) > 0 for falls in found["auc_falls"].values() for fall in falls.values())
    assert found["tells_all"] == {}
    report = json.loads(next((Path(tiny.workspace) / "reports").rglob("report.json")).read_text())
    assert "most important" in json.dumps(report["data_card"]["Features"])
