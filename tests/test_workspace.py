from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from kgrec.errors import InputError, WorkspaceBusyError
from kgrec.workspace import Workspace

HOLD = """
import sys, time
from kgrec.workspace import Workspace
with Workspace(sys.argv[1]).hold("kgrec run shop.toml"):
    print("held", flush=True)
    time.sleep(60)
"""
TRY = """
import sys
from kgrec.errors import WorkspaceBusyError
from kgrec.workspace import Workspace
try:
    with Workspace(sys.argv[1]).hold("second"):
        print("got it")
except WorkspaceBusyError as error:
    print(error)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_told_who_holds_the_workspace(tmp_path, holder):
    with pytest.raises(WorkspaceBusyError) as error, Workspace(tmp_path).hold("kgrec rollback"):
        pass
    text = str(error.value)
    assert str(tmp_path) in text
    assert "`kgrec run shop.toml`" in text
    assert f"process {holder.pid}" in text
    assert "remedy" in text
    assert error.value.exit_status == 1


def test_a_killed_holder_frees_the_workspace(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    note = tmp_path / ".holder.json"
    assert json.loads(note.read_text())["process"] == holder.pid, "a killed process cannot tidy up"
    until = time.monotonic() + 5
    while True:
        try:
            with Workspace(tmp_path).hold("kgrec run"):
                assert json.loads(note.read_text())["process"] == os.getpid()
            break
        except WorkspaceBusyError:
            assert time.monotonic() < until, "the lock outlived its holder"
    assert not note.exists()


def test_another_process_is_refused_while_this_one_holds_and_let_in_after(tmp_path):
    def attempt():
        command = [sys.executable, "-c", TRY, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with Workspace(tmp_path).hold("kgrec promote 3"):
        assert f"`kgrec promote 3` (process {os.getpid()}" in attempt()
    assert attempt() == "got it\n"


def test_an_error_inside_frees_the_workspace(tmp_path):
    place = Workspace(tmp_path)
    with pytest.raises(RuntimeError, match="inside"), place.hold("first"):
        raise RuntimeError("inside")
    with place.hold("second"):
        pass


@pytest.mark.parametrize("note", [None, "", "{}", "not json"])
def test_a_holder_that_left_no_readable_note_is_still_reported(tmp_path, holder, note):
    path = tmp_path / ".holder.json"
    path.unlink() if note is None else path.write_text(note)
    with (
        pytest.raises(WorkspaceBusyError, match="is held by another kgrec process"),
        Workspace(tmp_path).hold("kgrec rollback"),
    ):
        pass


def test_a_workspace_is_made_with_its_parents_and_everything_lies_in_it(tmp_path):
    place = Workspace(tmp_path / "a" / "b")
    assert place.root.is_dir()
    paths = [value for name, value in vars(place).items() if name not in ("root", "shown", "store")]
    assert len(paths) == 17
    assert all(path.parent == place.root for path in [*paths, place.store.root])
    assert len(set(paths)) == len(paths)


def test_a_file_in_the_way_is_the_users_problem(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="cannot be a workspace") as error:
            Workspace(path)
        assert "--workspace" in str(error.value)
