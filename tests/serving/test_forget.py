"""Forgetting a person: nothing is left of them, others are answered as before, and they do not come back."""

from __future__ import annotations

import re

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from safetensors.numpy import load_file

from kgrec.artifacts import load_artifact
from kgrec.data.tombstones import LEFT_OUT, Tombstones, leave_out
from kgrec.errors import ArtifactError
from kgrec.features.latest import LatestFeatures
from kgrec.serving import forget as module
from kgrec.serving import versions
from kgrec.serving.forget import forget, without
from kgrec.serving.live import LiveVersion
from kgrec.serving.recommend import load
from kgrec.serving.standing import Standing
from kgrec.stages import run
from kgrec.workspace import Workspace
from tests import worlds
from tests.calling import as_json, call

PERSON = "u01"  # the report shows them as an example
WORD = re.compile(rb"(?<![A-Za-z0-9])u01(?![A-Za-z0-9])")


def traces(place, vectors=()):
    """Return every file that names the person or holds one of their vectors, the contents of Parquet files included."""
    found = []
    for path in sorted(place.root.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        named = bool(WORD.search(content))
        if path.suffix == ".parquet":
            table = pl.read_parquet(path)
            named = any(WORD.search(str(row).encode()) for row in table.iter_rows())
        if named or any(vector in content for vector in vectors):
            found.append(str(path.relative_to(place.root)))
    return found


def answers(place):
    """Return all that the promoted version says to and of everybody else."""
    version = load(place.root)
    others = [user for user in version.users.entries if user != PERSON and not user.startswith("\x1f")]
    items = version.items.ids(pl.Series(version.catalogue_rows)).to_list()
    pairs = pl.DataFrame({"user": others[:20], "item": (items * 2)[:20]})
    return [version.recommend(others, k=10, explain=True), version.similar(items[:20], k=5), version.score(pairs)]


@pytest.fixture
def place(tiny_copy):
    return Workspace(tiny_copy)


def vectors_of(place):
    version = load(place.root)
    row = version.user_rows[PERSON]
    return [version.user_vectors_UD[row].tobytes()]


def test_nothing_is_left_of_the_person_and_others_are_answered_as_before(place):
    vectors, before = vectors_of(place), answers(place)
    registry = versions.read_registry(place)
    assert len(traces(place, vectors)) > 10, "the search would find traces"
    live = LiveVersion(place)
    live.look()
    told = as_json(call("forget", "--user", f" {PERSON} ", "--workspace", place.root, "--json"))
    assert told["versions_made_anew"] == ["1"]
    assert any(path.startswith("artifacts/split/") for path in told["artifacts_deleted"])
    assert len(told["mlflow_copies_replaced"]) == 1
    assert len(told["reports_removed"]) == 2
    assert told["feature_tables_rewritten"] == ["feature_tables/tiny/parquet"]
    assert traces(place, vectors) == []
    for one, other in zip(before, answers(place), strict=True):
        assert_frame_equal(one, other)
    assert load(place.root).standing(PERSON) is Standing.POPULARITY
    for manifest in place.root.rglob("manifest.json"):
        load_artifact(manifest.parent)  # every byte as its manifest says
    now = versions.read_registry(place)
    assert (now.promoted, len(now.versions)) == (registry.promoted, len(registry.versions))
    assert [line["what"] for line in versions.read_audit(place.audit)][-1] == "made anew"
    assert live.look(), "a running service switches to the version without the person"
    assert PERSON not in live.current.version.user_rows


def test_the_next_run_leaves_the_person_out_and_says_so(place, caplog):
    forget(place, PERSON)
    result = run(worlds.TINY, place.root, overrides=["training.epochs=2", "gate.tolerance=0.9"])
    assert "rows of people who were forgotten were left out" in caplog.text
    assert traces(place) == []
    assert result.released.version == "2"
    (ingested,) = (place.root / "artifacts" / "ingest").iterdir()
    facts = load_artifact(ingested).facts
    log = pl.read_csv(worlds.TINY.parent / "tiny" / "ratings.csv")
    kept = log.filter(pl.col("user") != PERSON).height
    assert facts["events"] == pl.read_parquet(ingested / "events.parquet").height == kept
    assert facts[LEFT_OUT] == log.height - kept + 1, "their events, and their row of the users' table"
    again = forget(place, PERSON)
    assert (again.already, again.deleted, again.versions) == (True, [], [])


def test_a_person_whom_nobody_knows_is_an_input_error_and_leaves_no_tombstone(place):
    refused = call("forget", "--user", "u0l", "--workspace", place.root)
    assert refused.exit_code == 2
    assert "nothing in this workspace names this person" in refused.stderr
    assert not place.tombstones.exists()


@pytest.mark.parametrize("step", ["replace_artifacts", "_replace_copy", "_remove_report"])
def test_a_process_killed_half_way_is_finished_by_the_next(place, monkeypatch, step):
    before = answers(place)
    owner = versions if step == "replace_artifacts" else module
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            forget(place, PERSON)
    assert answers(place)[0].equals(before[0]), "what is served is whole at any moment"
    assert Tombstones.load(place.tombstones).holds(PERSON), "the tombstone comes first"
    forget(place, PERSON)
    assert traces(place) == []
    assert [path.name for path in (place.root / "artifacts" / "version").iterdir()] == [
        versions.promoted(place).key[:20]
    ]


def test_a_version_without_a_person_keeps_every_other_row(place, tmp_path):
    version = load(place.root)
    row, count = version.user_rows[PERSON], len(version.users)
    (tmp_path / "out").mkdir()
    without(version.artifact, PERSON, tmp_path / "out")
    old, new = (
        load_file(version.artifact.file("vectors.safetensors")),
        load_file(tmp_path / "out" / "vectors.safetensors"),
    )
    others = [user for user in range(count) if user != row]
    assert not new["user_vectors_UD"][row].any()
    assert (new["user_vectors_UD"][others] == old["user_vectors_UD"][others]).all()
    assert (new["item_vectors_ID"] == old["item_vectors_ID"]).all()
    latest = [LatestFeatures.load(folder / "latest").views for folder in (version.artifact.path, tmp_path / "out")]
    for was, now in zip(*latest, strict=True):
        kept = was.table.filter(pl.col("user_row") != row) if "user_row" in was.keys else was.table
        assert_frame_equal(now.table, kept)
    assert any(was.table.height > now.table.height for was, now in zip(*latest, strict=True))
    history = pl.read_parquet(tmp_path / "out" / "history.parquet")
    assert row not in history["user_row"]
    assert history.height < pl.read_parquet(version.artifact.file("history.parquet")).height
    with pytest.raises(ArtifactError, match="does not know the person"):
        without(version.artifact, "stranger", tmp_path / "out")


def test_a_tombstone_tells_nothing_without_its_salt(tmp_path):
    one, other = (Tombstones.load(tmp_path / "none").bury("ann") for _ in range(2))
    assert one.salt != other.salt
    assert one.hashes != other.hashes
    one.save(tmp_path / "stones.json")
    assert "ann" not in (tmp_path / "stones.json").read_text()
    assert Tombstones.load(tmp_path / "stones.json") == one
    assert one.digest == one.bury("ann").digest != one.bury("bob").digest
    assert Tombstones("00").digest is None
    (tmp_path / "stones.json").write_text("{}")
    with pytest.raises(ArtifactError, match="damaged"):
        Tombstones.load(tmp_path / "stones.json")


def test_rows_of_the_forgotten_leave_every_table_and_the_quarantine(tmp_path):
    people = pl.DataFrame({"user": ["ann", "bob", "ann"], "n": [1, 2, 3]})
    for name in ("events", "exposures", "users"):
        people.write_parquet(tmp_path / f"{name}.parquet")
    pl.DataFrame({"row_text": ['{"user": "ann"}']}).write_parquet(tmp_path / "quarantine.parquet")
    assert leave_out(tmp_path, Tombstones("00")) == {}
    assert pl.read_parquet(tmp_path / "quarantine.parquet").height == 1
    facts = leave_out(tmp_path, Tombstones("00").bury("ann"))
    assert facts == {"events": 1, "exposures": 1, "users": 1, LEFT_OUT: 6}
    assert pl.read_parquet(tmp_path / "events.parquet").rows() == [("bob", 2)]
    assert pl.read_parquet(tmp_path / "quarantine.parquet").height == 0
