from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kgrec import artifacts
from kgrec.artifacts import (
    MANIFEST,
    ArtifactStore,
    canonical_json,
    fingerprint,
    load_artifact,
    share_file,
    write_atomically,
)
from kgrec.errors import ArtifactError

INPUTS = {"log": "abc"}
CONFIG = {"epochs": 3, "share": 0.5}


def write_two_files(folder):
    (folder / "numbers.bin").write_bytes(bytes(range(64)))
    (folder / "deep").mkdir()
    (folder / "deep" / "words.txt").write_text("one two three\n")
    return {"rows": 2, "names": ("a", "b")}


def never(folder):
    raise AssertionError("an artifact that is there must not be made again")


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def built(store):
    artifact, cached = store.build("sample", INPUTS, CONFIG, write_two_files)
    assert not cached
    return artifact


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0x01
    path.write_bytes(bytes(content))


def test_an_artifact_comes_back_as_it_was_made(store, built):
    loaded = load_artifact(built.path, "sample")
    assert loaded == built
    assert loaded.inputs == INPUTS
    assert loaded.config == CONFIG
    assert loaded.facts == {"rows": 2, "names": ["a", "b"]}
    assert sorted(loaded.files) == ["deep/words.txt", "numbers.bin"]
    assert loaded.file("deep/words.txt").read_text() == "one two three\n"
    assert store.path("sample", built.key) == built.path
    with pytest.raises(ArtifactError, match=r"holds no file 'other'.*numbers\.bin"):
        loaded.file("other")


def test_a_shared_file_lies_on_the_disk_once_where_that_can_be_and_is_open_to_whoever_may_read_the_folder(
    tmp_path, monkeypatch
):
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir(mode=0o750)
    source = tmp_path / "one" / "numbers.bin"
    source.write_bytes(b"numbers")
    source.chmod(0o600)
    share_file(source, tmp_path / "other" / "linked.bin")
    assert (tmp_path / "other" / "linked.bin").samefile(source)
    assert source.stat().st_mode & 0o777 == 0o640
    monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(PermissionError("no links here")))
    share_file(source, tmp_path / "other" / "copied.bin")
    assert not (tmp_path / "other" / "copied.bin").samefile(source)
    assert (tmp_path / "other" / "copied.bin").read_bytes() == b"numbers"


@pytest.mark.parametrize("name", ["numbers.bin", "deep/words.txt"])
@pytest.mark.parametrize("place", [0, 5, -1])
def test_a_flipped_byte_of_content_is_refused_by_the_files_name(built, name, place):
    flip(built.path / name, place)
    with pytest.raises(ArtifactError, match=f"{name}: content differs") as error:
        load_artifact(built.path)
    assert "delete the folder" in str(error.value)


def test_every_byte_of_the_manifest_is_sealed(built):
    path = built.path / MANIFEST
    whole = path.read_bytes()
    for place in range(len(whole)):
        flip(path, place)
        with pytest.raises(ArtifactError, match=r"manifest\.json: content"):
            load_artifact(built.path)
        path.write_bytes(whole)
    assert load_artifact(built.path) == built


def test_a_manifest_that_was_edited_with_care_for_the_layout_is_refused(built):
    path = built.path / MANIFEST
    raw = json.loads(path.read_text())
    raw["body"]["facts"]["rows"] = 3
    path.write_text(json.dumps(raw, indent=1, sort_keys=True) + "\n")
    with pytest.raises(ArtifactError, match="differs from its seal"):
        load_artifact(built.path, verify=False)


def test_a_manifest_that_says_the_same_in_other_bytes_is_refused(built):
    path = built.path / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text())))
    with pytest.raises(ArtifactError, match="differs from its seal"):
        load_artifact(built.path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"body": 1, "seal": "x"}', '{"body": {}}', "null"])
def test_a_manifest_that_is_none_is_refused(built, text):
    (built.path / MANIFEST).write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json: content"):
        load_artifact(built.path)


def test_missing_extra_and_damaged_files_are_all_named_at_once(built):
    (built.path / "numbers.bin").unlink()
    (built.path / "stray.txt").write_text("?")
    flip(built.path / "deep" / "words.txt", 0)
    with pytest.raises(ArtifactError) as error:
        load_artifact(built.path)
    text = str(error.value)
    assert "numbers.bin: missing" in text
    assert "stray.txt: not in the manifest" in text
    assert "deep/words.txt: content differs" in text


def test_another_kind_another_schema_and_no_artifact_are_refused(built, tmp_path, monkeypatch):
    with pytest.raises(ArtifactError, match="a 'sample' artifact where 'index' was expected"):
        load_artifact(built.path, "index")
    with pytest.raises(ArtifactError, match="is no kgrec artifact"):
        load_artifact(tmp_path)
    monkeypatch.setattr(artifacts, "SCHEMA", 2)
    with pytest.raises(ArtifactError, match="schema 1, this kgrec reads schema 2"):
        load_artifact(built.path)


def test_equal_inputs_are_reused_and_any_other_is_not(store, built):
    again, cached = store.build("sample", dict(INPUTS), dict(reversed(CONFIG.items())), never)
    assert cached
    assert again == built
    keys = {
        built.key,
        store.key("other", INPUTS, CONFIG),
        store.key("sample", {"log": "abd"}, CONFIG),
        store.key("sample", INPUTS, {**CONFIG, "epochs": 4}),
    }
    assert len(keys) == 4
    _, cached = store.build("sample", {"log": "abd"}, CONFIG, write_two_files)
    assert not cached


def test_what_older_code_made_is_not_reused(store, built, monkeypatch):
    monkeypatch.setattr(artifacts, "code_version", lambda: "changed")
    assert store.key("sample", INPUTS, CONFIG) != built.key
    other, cached = store.build("sample", INPUTS, CONFIG, write_two_files)
    assert not cached
    assert other.path != built.path
    assert other.digest == built.digest, "the digest is of the content, whatever led to it"


def test_a_damaged_artifact_is_not_reused_in_silence(store, built):
    flip(built.path / "numbers.bin", 3)
    with pytest.raises(ArtifactError, match=r"numbers\.bin"):
        store.build("sample", INPUTS, CONFIG, never)


def test_a_failing_make_leaves_nothing_and_the_next_build_starts_clean(store):
    def fail(folder):
        (folder / "half.bin").write_bytes(b"half")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        store.build("sample", INPUTS, CONFIG, fail)
    key = store.key("sample", INPUTS, CONFIG)
    assert store.find("sample", key) is None
    assert not store.path("sample", key).exists()
    artifact, cached = store.build("sample", INPUTS, CONFIG, write_two_files)
    assert not cached
    assert not (artifact.path / "half.bin").exists()
    load_artifact(artifact.path)


def test_what_a_killed_build_left_is_swept(store, tmp_path):
    script = (
        "import os, signal, pathlib\n"
        "from kgrec.artifacts import ArtifactStore\n"
        "def make(folder):\n"
        "    (folder / 'half.bin').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"ArtifactStore(pathlib.Path({str(store.root)!r})).build('sample', {{}}, {{}}, make)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert [path.name for path in store.root.rglob("half.bin")] == ["half.bin"]
    assert store.find("sample", store.key("sample", {}, {})) is None
    store.sweep()
    assert list(store.root.rglob("half.bin")) == []


def test_a_folder_without_a_manifest_is_replaced(store, built):
    (built.path / MANIFEST).unlink()
    assert store.find("sample", built.key) is None
    again, cached = store.build("sample", INPUTS, CONFIG, write_two_files)
    assert not cached
    assert load_artifact(again.path) == built


def test_two_builds_are_equal_byte_for_byte(tmp_path):
    folders = []
    for name in ("one", "two"):
        artifact, _ = ArtifactStore(tmp_path / name).build("sample", INPUTS, CONFIG, write_two_files)
        files = (path for path in sorted(artifact.path.rglob("*")) if path.is_file())
        folders.append({str(path.relative_to(artifact.path)): path.read_bytes() for path in files})
    assert folders[0] == folders[1]
    assert MANIFEST in folders[0]


def test_the_digest_follows_files_and_facts_only(store):
    def noted(facts):
        return lambda folder: (folder / "a").write_bytes(b"a") and facts

    first, _ = store.build("sample", {"from": "1"}, {}, noted({"n": 1}))
    second, _ = store.build("sample", {"from": "2"}, {}, noted({"n": 1}))
    third, _ = store.build("sample", {"from": "3"}, {}, noted({"n": 2}))
    assert first.digest == second.digest != third.digest


def test_fingerprints_know_values_not_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert len({fingerprint(value) for value in ({"a": 1}, {"a": "1"}, {"a": [1]}, {"a": None}, {})}) == 5
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"\\u00e9","b":1}'


def test_an_interrupted_write_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    write_atomically(path, b"old")

    def fail(descriptor):
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="no space"):
            write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
