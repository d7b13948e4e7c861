"""What the service keeps of its answers: bounded, the least wanted gone first."""

from __future__ import annotations

from kgrec.serving.remembered import Kept, Remembered


def asked(name):
    return ("/v1/recommend", name)


def test_an_answer_is_found_by_its_path_and_its_very_words():
    kept = Remembered(10_000)
    kept.keep(asked(b"ann"), Kept(b"list", "trained"))
    assert kept.find(asked(b"ann")) == Kept(b"list", "trained")
    assert kept.find(asked(b"ann ")) is None
    assert kept.find(("/v1/similar", b"ann")) is None


def test_the_one_unasked_for_longest_goes_first():
    kept = Remembered(3 * 1_400)
    for name in (b"ann", b"bob", b"cat"):
        kept.keep(asked(name), Kept(bytes(1_000), None))
    assert kept.find(asked(b"ann")) is not None
    kept.keep(asked(b"dan"), Kept(bytes(1_000), None))
    here = [kept.find(asked(name)) is not None for name in (b"ann", b"bob", b"cat", b"dan")]
    assert here == [True, False, True, True]


def test_bytes_are_counted_once_for_an_answer_that_is_kept_again_and_given_back():
    kept = Remembered(3_000)
    for _ in range(50):
        kept.keep(asked(b"ann"), Kept(bytes(1_000), None))
        kept.keep(asked(b"bob"), Kept(bytes(1_000), None))
    assert len(kept) == 2
    kept.keep(asked(b"cat"), Kept(bytes(2_600), None))
    assert len(kept) == 1
    kept.keep(asked(b"dan"), Kept(bytes(5_000), None))  # larger than all that may be kept
    assert len(kept) == 0
    kept.keep(asked(b"ann"), Kept(bytes(1_000), None))
    assert len(kept) == 1


def test_nothing_is_kept_without_room_nor_of_long_words():
    nothing, some = Remembered(0), Remembered(1 << 20)
    nothing.keep(asked(b"ann"), Kept(b"", None))
    some.keep(asked(bytes(1_025)), Kept(b"list", None))
    assert len(nothing) == len(some) == 0
