from __future__ import annotations

import sys
import time

import pytest

from kgrec.serving.pacing import paced


def spin(seconds):
    """Use so much of a processor in this thread, in many small calls; return the seconds on the wall."""
    start, end = time.perf_counter(), time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(20))
    return time.perf_counter() - start


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_paced_work_has_its_share_of_a_processor_and_no_more(share):
    with paced(0.001, share):
        assert spin(0.04) >= 0.9 * 0.04 / share


def test_no_piece_is_much_longer_than_asked(monkeypatch):
    """What is slept tells what was worked: here as long again."""
    naps, sleep = [], time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: (naps.append(seconds), sleep(seconds)))
    with paced(0.002, 0.5):
        spin(0.04)
    assert 5 < len(naps) <= 20
    assert sorted(naps)[len(naps) // 2] < 0.004
    assert min(naps) >= 0.002


def test_it_ends_with_the_block_also_with_a_faulty_one():
    before = sys.getprofile()
    inside = []
    with pytest.raises(ZeroDivisionError), paced():
        inside.append(sys.getprofile()) or 1 / 0
    assert inside[0] is not None
    assert sys.getprofile() is before
