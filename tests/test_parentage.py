"""A bound process ends with its parent, and at once where the parent has ended before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest

from tests import worlds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
CHILD = """
import os, sys, time
from kgrec.parentage import end_with
end_with(int(sys.argv[1]))
print(os.getpid(), flush=True)
time.sleep(600)
"""
PARENT = f"""
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {CHILD!r}, str(os.getpid())])
time.sleep(600)
"""


def test_a_bound_process_ends_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=worlds.ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.kill()
        survivor = Timer(30, os.kill, (child, signal.SIGKILL))
        survivor.start()
        assert parent.stdout.read() == "", "the pipe ends when the last who holds it does"
        assert survivor.is_alive(), "the child was still there after half a minute"
        survivor.cancel()


def test_a_process_whose_parent_ended_before_ends_at_once() -> None:
    late = subprocess.run(
        [sys.executable, "-c", CHILD, str(os.getpid() + 1)],
        cwd=worlds.ROOT,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert late.returncode == -signal.SIGTERM
    assert late.stdout == b""
