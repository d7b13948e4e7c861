from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from kgrec.errors import InputError
from kgrec.serving import tokens as module
from kgrec.serving.limits import RateLimit, ServiceConfig
from kgrec.serving.tokens import new_token, read_token_file, read_tokens

HASH = hashlib.sha256(b"open sesame").hexdigest()
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def test_a_new_token_counts_and_only_its_hash_is_kept(tmp_path):
    path = tmp_path / "tokens"
    token, other = new_token(path, "shop"), new_token(path, "night-job", days=2, now=NOW)
    text = path.read_text()
    assert token not in text
    assert other not in text
    assert path.stat().st_mode & 0o077 == 0
    known = read_token_file(path)
    assert (known.owner(token), known.owner(other, NOW)) == ("shop", "night-job")
    assert known.owner(other, NOW + timedelta(days=2)) is None
    assert known.owner(token + "x") is None
    with pytest.raises(InputError, match="of this name is there"):
        new_token(path, "shop")
    with pytest.raises(InputError, match="no name for a token"):
        new_token(path, "two words")
    assert path.read_text() == text


def test_lines_comments_dates_and_semicolons(tmp_path):
    text = f"# callers\n\na {HASH.upper()}  # for ever\nb {HASH[::-1]} 2026-05-01; c {HASH} 2026-05-01T14:00+02:00"
    known = read_tokens(text, "x")
    assert len(known) == 3
    assert known.owner("open sesame", NOW) == "a", "c expired at 12:00 UTC"
    assert read_tokens(f"c {HASH} 2026-05-01T14:00+02:00", "x").owner("open sesame", NOW - timedelta(seconds=1)) == "c"
    assert read_tokens("# nobody", "x").owner("") is None
    (tmp_path / "t").write_text(f"a {HASH}")
    new_token(tmp_path / "t", "b")
    assert len(read_token_file(tmp_path / "t")) == 2, "a last line without an end is kept whole"


def test_every_bad_line_is_named():
    lines = [f"a {HASH}", f"a {HASH}", "b", f"c {HASH[:-1]}", f"d {HASH} tomorrow", f"-e {HASH}", "f secret"]
    with pytest.raises(InputError) as error:
        read_tokens("\n".join(lines), "tokens.txt")
    found = [(problem.where, problem.what) for problem in error.value.problems]
    assert [where for where, _ in found] == [f"tokens.txt line {n}" for n in range(2, 8)]
    assert "second token of this name" in found[0][1]
    assert "is it the token itself" in found[5][1]
    assert "secret" not in str(error.value)


def test_a_file_that_is_missing_or_empty_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_token_file(tmp_path / "none")
    (tmp_path / "empty").write_text("# nobody\n")
    with pytest.raises(InputError, match="no token in it"):
        read_token_file(tmp_path / "empty")


def test_all_hashes_are_compared_in_constant_time_whichever_fits(monkeypatch):
    compared = []
    monkeypatch.setattr(module.hmac, "compare_digest", lambda a, b: compared.append(b) or a == b)
    known = read_tokens("\n".join(f"n{n} {hashlib.sha256(str(n).encode()).hexdigest()}" for n in range(5)), "x")
    for token in ("0", "4", "none"):
        compared.clear()
        known.owner(token)
        assert len(compared) == 5


def test_a_caller_has_a_burst_then_the_rate_and_others_have_theirs():
    now = [0.0]
    limit = RateLimit(per_second=2.0, burst=3, clock=lambda: now[0])
    assert [limit.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.wait("b") == 0
    now[0] = 0.5
    assert [limit.wait("a"), limit.wait("a")] == [0, 0.5]
    now[0] = 1000.0
    assert [limit.wait("a") for _ in range(4)] == [0, 0, 0, 0.5], "no more than the burst is saved up"


def test_the_longest_unseen_callers_are_forgotten():
    limit = RateLimit(0.001, 1, clock=lambda: 0.0)
    for caller in range(10_001):
        limit.wait(str(caller))
    assert limit.wait("10000") > 0
    assert limit.wait("0") == 0
    assert len(limit._buckets) == 10_000


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.4", False), ("example.org", False)],
)  # fmt: skip
def test_what_is_loopback(host, local):
    assert ServiceConfig(host=host).on_loopback is local


@pytest.mark.parametrize("wrong", [{"port": 70000}, {"burst": 0}, {"requests_per_second": 0}, {"unknown": 1}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValidationError):
        ServiceConfig(**wrong)
