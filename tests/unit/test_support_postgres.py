"""The PostgreSQL harness: what every test on PostgreSQL stands on must not itself be in doubt."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.support import accounts, postgres, postgres_binaries
from tests.support.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Postgres

ROOT = Path(__file__).parents[2]
SERVE_FOR_A_MINUTE = """
import time
from tests.support.postgres import PostgresServer
with PostgresServer() as server:
    print(server.pid, server.folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that tests may kill, whatever the others use."""
    with PostgresServer() as server:
        yield server


def is_alive(pid: int) -> bool:
    """Whether a process exists; one that is dead but not yet reaped by its parent does not count."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


async def test_it_serves_the_version_it_claims(own_server: PostgresServer) -> None:
    connection = await own_server.connect()
    try:
        shown = await connection.fetchval("SHOW server_version")
        collation = await connection.fetchval("SELECT datcollate FROM pg_database WHERE datname = 'postgres'")
        encoding = await connection.fetchval("SHOW server_encoding")
    finally:
        await connection.close()
    assert shown.split()[0] == own_server.version
    assert (collation, encoding) == ("C", "UTF8")


def test_it_never_runs_as_root(own_server: PostgresServer) -> None:
    owner = Path(f"/proc/{own_server.pid}").stat().st_uid
    assert owner != 0
    assert owner == accounts.server_account().uid


async def test_a_clone_has_what_its_template_has_and_is_dropped_while_in_use(own_server: PostgresServer) -> None:
    await own_server.create_database("pattern")
    connection = await own_server.connect("pattern")
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    await connection.close()

    url = await own_server.create_database("clone", "pattern")
    assert url == f"postgresql+asyncpg://postgres@127.0.0.1:{own_server.address.port}/clone"
    clone = await own_server.connect("clone")
    assert await clone.fetchval("SELECT number FROM kept") == 7

    await own_server.drop_database("clone")
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
        await clone.fetchval("SELECT number FROM kept")
    with contextlib.suppress(OSError, asyncpg.PostgresError):
        await clone.close(timeout=1)
    await own_server.drop_database("clone")
    await own_server.drop_database("pattern")


async def test_committed_rows_survive_a_kill_and_a_restart(own_server: PostgresServer) -> None:
    await own_server.create_database("survivor")
    connection = await own_server.connect("survivor")
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    port = own_server.address.port
    backend = await connection.fetchval("SELECT pg_backend_pid()")

    own_server.kill()
    assert not own_server.is_running
    assert wait_until_gone(backend)
    connection.terminate()

    own_server.restart()
    assert own_server.address.port == port
    for _ in range(2):
        connection = await own_server.connect("survivor")
        assert await connection.fetchval("SELECT number FROM kept") == 7
        await connection.close()
        own_server.restart()
    await own_server.drop_database("survivor")


async def test_ordinary_servers_skip_fsync_and_a_benchmark_does_not(own_server: PostgresServer) -> None:
    connection = await own_server.connect()
    assert await connection.fetchval("SHOW fsync") == "off"
    await connection.close()
    with PostgresServer(fsync=True, settings={"work_mem": "5MB"}) as server:
        connection = await server.connect()
        assert await connection.fetchval("SHOW fsync") == "on"
        assert await connection.fetchval("SHOW work_mem") == "5MB"
        await connection.close()


def test_stopping_leaves_no_process_and_no_folder() -> None:
    server = PostgresServer()
    server.start()
    pid, folder = server.pid, server.folder
    assert folder.is_dir()
    server.stop()
    assert not is_alive(pid)
    assert not folder.exists()
    server.stop()


def test_a_server_that_cannot_start_says_why_and_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "BOOT_ATTEMPTS", 1)
    server = PostgresServer(settings={"shared_buffers": "nonsense"})
    with pytest.raises(RuntimeError, match='invalid value for parameter "shared_buffers"'):
        server.start()
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.folder


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel call exists on Linux only")
def test_the_kernel_ends_the_server_with_us() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE_FOR_A_MINUTE], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        assert is_alive(int(pid))
        parent.send_signal(signal.SIGKILL)
    assert wait_until_gone(int(pid))
    shutil.rmtree(folder)


def test_binaries_of_the_wheel_serve_a_machine_without_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(postgres_binaries.BIN_VARIABLE, postgres_binaries.WHEEL)
    binaries = postgres_binaries.find_binaries()
    assert binaries.from_wheel
    with PostgresServer(binaries=binaries) as server:
        assert server.is_running


def test_binaries_that_the_account_cannot_read_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(postgres_binaries.BIN_VARIABLE, postgres_binaries.WHEEL)
    monkeypatch.setattr(accounts.Account, "can_run", lambda self, program: False)
    with PostgresServer() as server:
        assert server._programs.is_relative_to(server.folder)
        assert server._programs.joinpath("postgres").is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has folders that its server account cannot enter")
def test_a_temporary_folder_that_the_account_cannot_enter_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with PostgresServer() as server:
        assert not server.folder.is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_binaries_is_an_error_and_not_a_reason_to_look_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(postgres_binaries.BIN_VARIABLE, str(tmp_path))
    with pytest.raises(RuntimeError, match=postgres_binaries.BIN_VARIABLE):
        postgres_binaries.find_binaries()


async def test_the_shared_server_gives_databases(postgres_server: Postgres, postgres_empty: str) -> None:
    assert postgres_empty.startswith("postgresql+asyncpg://")
    connection = await postgres_server.connect(postgres_empty.rpartition("/")[2])
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    finally:
        await connection.close()
