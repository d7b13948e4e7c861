"""A log read from a real PostgreSQL server, started for these tests on loopback and stopped after them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kgrec.data.snapshots import sqlalchemy
from kgrec.errors import InputError
from tests.data.ingesting import run, table

PASSWORD = "s3cr3t-Pa55"
INSTALL = "PostgreSQL's server programs are not installed: `apt-get install postgresql` (Debian, Ubuntu)"


def program(name: str) -> str | None:
    """Find a server program: on the path, or where Debian keeps it."""
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(kept[-1]) if kept else None)


def unprivileged(command: list[str]) -> list[str]:
    """The server refuses to run as root: then it runs as `postgres`."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


@dataclass(frozen=True)
class Server:
    port: int

    def url(
        self, *, user: str = "ann", password: str = PASSWORD, database: str = "postgres", host: str = "127.0.0.1"
    ) -> str:
        return f"postgresql://{user}:{password}@{host}:{self.port}/{database}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg", reason="pip install 'kgrec[postgresql]'")
    initdb, pg_ctl = program("initdb"), program("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip(INSTALL)
    folder = Path(tempfile.mkdtemp(prefix="kgrec-postgresql-"))
    data, words = folder / "data", folder / "words"
    words.write_text(PASSWORD)
    if os.geteuid() == 0:
        for path in (folder, words):
            shutil.chown(path, "postgres")
    port = free_port()
    make = [initdb, "-D", str(data), "-U", "ann", "-A", "scram-sha-256", f"--pwfile={words}", "--no-sync"]
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
    start = [pg_ctl, "-D", str(data), "-w", "-t", "60", "-l", str(folder / "log"), "-o", options, "start"]
    stop = [pg_ctl, "-D", str(data), "-m", "immediate", "-w", "stop"]
    try:
        subprocess.run(unprivileged(make), check=True, capture_output=True, cwd=folder)
        subprocess.run(
            unprivileged(start), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
        )
        try:
            fill(Server(port))
            yield Server(port)
        finally:
            subprocess.run(unprivileged(stop), check=False, capture_output=True, cwd=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fill(server: Server) -> None:
    engine = sqlalchemy.create_engine(server.url().replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as plain:
        connection = plain.execution_options(no_parameters=True)
        connection.exec_driver_sql(
            "CREATE TABLE log (person uuid, product numeric, what text, at timestamptz, stars real, note jsonb)"
        )
        connection.exec_driver_sql(
            "INSERT INTO log SELECT md5((n % 100)::text)::uuid, n % 7, "
            "CASE WHEN n % 5 = 0 THEN 'rating' ELSE 'view' END, "
            "'2024-01-01 01:00+01'::timestamptz + n * interval '1 second', n % 6, '{\"k\": [1]}' "
            "FROM generate_series(0, 59999) AS n"
        )
    engine.dispose()


COLUMNS = {"user": "person", "item": "product", "event": "what", "time": "at", "value": "stars"}


def test_a_log_is_read_by_query(server: Server, tmp_path: Path) -> None:
    query = "SELECT * FROM log WHERE note::text LIKE '%k%' AND at >= '2024-01-01 00:00:01+00' ORDER BY at"
    facts = run(tmp_path, {"url": server.url(), "query": query, "columns": COLUMNS})
    events = table(tmp_path, "events")
    assert facts["inputs"]["interactions"]["rows"] == facts["events"] == events.height == 59_999
    assert facts["time_range"] == ["2024-01-01T00:00:01+00:00", "2024-01-01T16:39:59+00:00"]
    assert events["item"].to_list() == [str(n % 7) for n in range(1, 60_000)]
    assert events["conversion"].to_list() == [n % 5 == 0 and n % 6 >= 4 for n in range(1, 60_000)]
    assert facts["users"] == 100
    assert events["user"][0] == "c4ca4238-a0b9-2382-0dcc-509a6f75849b"
    assert len(list((tmp_path / "scratch").glob("sql-*/part-*.parquet"))) == 2
    assert PASSWORD not in str(facts)


def test_bad_rows_of_a_query_have_no_line(server: Server, tmp_path: Path) -> None:
    query = "SELECT '1' AS user, 'a' AS item UNION ALL SELECT NULL, 'b'"
    facts = run(tmp_path, {"url": server.url(), "query": query, "tolerated": 0.5})
    assert facts["quarantined"] == {"blank user": 1}
    assert table(tmp_path, "quarantine")["line"].to_list() == [None]
    assert PASSWORD not in str(table(tmp_path, "quarantine").rows())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"password": "Wr0ng-Pa55"}, "password authentication failed"),
        ({"database": "shop"}, 'database "shop" does not exist'),
        ({"user": "bob"}, "password authentication failed"),
        ({"host": "127.0.0.2"}, "refused"),
    ],
)
def test_a_server_that_does_not_let_us_in(server: Server, tmp_path: Path, wrong: dict[str, str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        run(tmp_path, {"url": server.url(**wrong), "query": "SELECT 1"})
    text = str(caught.value)
    assert "cannot connect to the database (1 time)" in text
    assert says in text
    assert "check host, port, database, user and password" in text
    assert PASSWORD not in text
    assert "Wr0ng-Pa55" not in text


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT * FROM logg", 'relation "logg" does not exist'),
        ("SELEKT 1", "syntax error"),
        ("SELECT 1 / 0", "division by zero"),
        ("SELECT person, 1 / (product - 3) FROM log", "division by zero"),
    ],
)
def test_a_query_that_fails(server: Server, tmp_path: Path, query: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        run(tmp_path, {"url": server.url(), "query": query})
    assert "the query fails (1 time)" in str(caught.value)
    assert says in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_an_empty_answer_is_an_empty_log(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the log has no rows"):
        run(tmp_path, {"url": server.url(), "query": "SELECT * FROM log WHERE false", "columns": COLUMNS})
