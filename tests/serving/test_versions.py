from __future__ import annotations

import json

import pytest

from kgrec.errors import ArtifactError, InputError
from kgrec.serving.versions import (
    Registry,
    VersionRecord,
    promote,
    promoted,
    read_audit,
    read_registry,
    register,
    require,
    rollback,
)
from kgrec.workspace import Workspace


@pytest.fixture
def place(tmp_path):
    return Workspace(tmp_path)


def record(key, passed=True):
    reasons = ("above popularity",) if passed else ("FAILED: below popularity",)
    return VersionRecord("", "shop", key, f"run-{key}", "2024-01-01T00:00:00+00:00", passed, reasons, {"n": 0.5})


def add(place, count):
    return [register(place, record(f"key{number}")).version for number in range(1, count + 1)]


def told(place):
    return [(line["what"], line["version"]) for line in read_audit(place.audit)]


def test_an_empty_workspace_has_no_versions(place):
    assert read_registry(place) == Registry()
    assert read_audit(place.audit) == []
    with pytest.raises(InputError, match="no version is promoted"):
        promoted(place)
    with pytest.raises(InputError, match="there is no version yet"):
        require(read_registry(place), "1")


def test_versions_are_numbered_and_read_back_as_they_were(place):
    assert add(place, 12) == [str(number) for number in range(1, 13)]
    registry = read_registry(Workspace(place.root))
    assert [version.version for version in registry.versions] == [str(number) for number in range(1, 13)]
    assert registry.find("3").key == "key3"
    assert registry.by_key("key12").version == "12"
    assert registry.find("3").gate_reasons == ("above popularity",)
    assert registry.find("3").metrics == {"n": 0.5}
    assert registry.find("13") is registry.by_key("nothing") is None
    assert registry.promoted is None, "to register is not to serve"


def test_registering_the_same_artifact_again_changes_nothing(place):
    first = register(place, record("key1"))
    before, lines = place.registry.read_bytes(), place.audit.read_bytes()
    assert register(place, record("key1", passed=False)) == first
    assert place.registry.read_bytes() == before
    assert place.audit.read_bytes() == lines


def test_promoting_serves_and_remembers_what_was_served(place):
    add(place, 3)
    for version in ("1", "3", "2"):
        promote(place, version, why="test")
        assert promoted(place).version == version
    assert read_registry(place).served_before == ("1", "3")


def test_promoting_what_is_served_changes_nothing(place):
    add(place, 2)
    promote(place, "2", why="test")
    before, lines = place.registry.read_bytes(), place.audit.read_bytes()
    promote(place, "2", why="again")
    assert place.registry.read_bytes() == before
    assert place.audit.read_bytes() == lines


def test_an_unknown_version_names_the_known_ones(place):
    add(place, 2)
    before = place.audit.read_bytes()
    for version in ("7", "", "one"):
        with pytest.raises(InputError, match=f"version {version}: unknown.*(\n.*)*known versions: 1, 2"):
            promote(place, version, why="test")
    assert place.audit.read_bytes() == before
    assert read_registry(place).promoted is None


def test_rollbacks_walk_back_one_by_one(place):
    add(place, 3)
    for version in ("1", "2", "3"):
        promote(place, version, why="test")
    assert rollback(place, why="worse").promoted == "2"
    assert rollback(place, why="worse").promoted == "1"
    before = place.registry.read_bytes()
    with pytest.raises(InputError, match="no version was served before"):
        rollback(place, why="worse")
    assert place.registry.read_bytes() == before
    promote(place, "3", why="mended")
    assert rollback(place, why="worse").promoted == "1"


def test_every_change_is_one_line_of_the_audit_in_order(place):
    register(place, record("key1"))
    register(place, record("key2", passed=False))
    promote(place, "1", why="the gate passed")
    promote(place, "2", why="by hand")
    rollback(place, why="a mistake")
    assert told(place) == [
        ("registered", "1"), ("registered", "2"), ("promoted", "1"), ("promoted", "2"), ("rolled back", "1"),
    ]  # fmt: skip
    lines = read_audit(place.audit)
    assert lines[1]["passed"] is False
    assert lines[1]["reasons"] == ["FAILED: below popularity"]
    assert (lines[3]["replaces"], lines[3]["why"]) == ("1", "by hand")
    assert (lines[4]["replaces"], lines[4]["why"]) == ("2", "a mistake")
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert all(line["time"].endswith("+00:00") for line in lines)


def test_the_audit_only_grows(place):
    add(place, 3)
    steps = [
        lambda: promote(place, "1", why="a"),
        lambda: promote(place, "3", why="b"),
        lambda: rollback(place, why="c"),
    ]
    for step in steps:
        before = place.audit.read_bytes()
        step()
        after = place.audit.read_bytes()
        assert after.startswith(before)
        assert after.count(b"\n") == before.count(b"\n") + 1


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_line_cut_short_by_a_crash_costs_itself_only(place, cut):
    add(place, 2)
    place.audit.write_bytes(place.audit.read_bytes()[:-cut])
    promote(place, "1", why="after the crash")
    found = told(place)
    assert found[0] == ("registered", "1")
    assert found[-1] == ("promoted", "1")
    assert len(found) == (3 if cut == 1 else 2)


def test_an_audit_cut_within_a_letter_can_still_be_read(place):
    add(place, 1)
    with place.audit.open("ab") as stream:
        stream.write('{"why": "é'.encode()[:-1])
    assert told(place) == [("registered", "1")]
    promote(place, "1", why="after the crash")
    assert told(place)[-1] == ("promoted", "1")


def test_a_change_that_cannot_be_audited_does_not_happen(place):
    add(place, 2)
    promote(place, "1", why="test")
    place.audit.unlink()
    place.audit.mkdir()
    with pytest.raises(OSError, match="audit"):
        promote(place, "2", why="test")
    assert read_registry(place).promoted == "1"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"versions": [{}], "promoted": null, "served_before": []}', "\x80"]
)
def test_a_damaged_registry_is_refused_and_not_overwritten(place, text):
    place.registry.write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match=r"versions\.json: damaged"):
        read_registry(place)
    with pytest.raises(ArtifactError):
        register(place, record("key1"))
    assert place.registry.read_bytes() == text.encode("latin-1")


def test_a_registry_cut_at_any_place_is_refused(place):
    add(place, 2)
    promote(place, "1", why="test")
    whole = place.registry.read_bytes()
    for length in range(1, len(whole.rstrip()), 7):
        place.registry.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="damaged"):
            read_registry(place)
    place.registry.write_bytes(whole)
    assert json.loads(whole)["promoted"] == "1"
