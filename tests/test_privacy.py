"""People in reports: no id in anything that others read, unless the config allows it; and still found when they go."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from feature_store.catalog import VIEWS
from kgrec.privacy import pseudonym, salt_of
from kgrec.serving.forget import forget
from kgrec.stages import RunResult, run
from kgrec.workspace import Workspace
from tests import worlds

IDS = re.compile(r"(?<![A-Za-z0-9#])u\d\d(?![A-Za-z0-9])")


def told(folder: Path) -> str:
    """Return all that a run tells others: its report, and what MLflow keeps of it but for the version itself."""
    kept = [path for path in folder.rglob("*") if path.suffix in (".html", ".md", ".json") and "reports" in path.parts]
    kept += list((folder / "mlflow-artifacts").rglob("report/*"))
    assert len(kept) >= 6
    return "\n".join(path.read_text() for path in kept)


def test_a_report_names_nobody_by_id(tiny: RunResult, caplog: pytest.LogCaptureFixture) -> None:
    place = Workspace(tiny.workspace)
    assert IDS.search("User u01 had") is not None, "an id would be found"
    text = told(place.root)
    assert not IDS.search(text)
    examples = json.loads(tiny.released.report.with_name("report.json").read_text())["examples"]
    assert [example["user"] for example in examples][:1] == [pseudonym("u01", salt_of(place))]
    assert not IDS.search((place.root / "mlflow.db").read_bytes().decode("latin1"))


def test_the_config_may_allow_ids_and_the_person_is_found_either_way(tiny_copy: Path) -> None:
    allowed = ["privacy.user_ids=true", "gate.tolerance=0.5"]
    result = run(worlds.TINY, tiny_copy, views=VIEWS, overrides=allowed)
    examples = json.loads(result.released.report.with_name("report.json").read_text())["examples"]
    assert examples[0]["user"] == "u01"
    gone = forget(Workspace(tiny_copy), "u01").reports
    assert len([path for path in gone if path.startswith("reports/")]) == 2, "one by hash, one by id"


def test_a_hash_is_the_workspace_s_own(tmp_path: Path) -> None:
    salts = [salt_of(Workspace(tmp_path / name)) for name in "ab"]
    assert salts[0] != salts[1]
    assert salt_of(Workspace(tmp_path / "a")) == salts[0]
    assert len({pseudonym(user, salt) for user in ("ann", "bob") for salt in salts}) == 4
