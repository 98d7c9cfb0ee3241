"""PostgreSQL for tests: a private server on loopback, or one that is given.

`PostgresServer` boots in under a second, needs no root and no system PostgreSQL, and leaves nothing behind: the kernel
ends it with us, even if we are killed. `SESSIONSTORE_TEST_POSTGRES_URL` names a running server to use instead; its
account must be allowed to create databases, and nothing but databases named `sessionstore_test_*` is touched.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import asyncpg
from sqlalchemy import URL, make_url

from tests.support.accounts import server_account
from tests.support.postgres_binaries import PostgresBinaries, find_binaries

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["URL_VARIABLE", "GivenPostgres", "Postgres", "PostgresServer", "given_url"]

URL_VARIABLE = "SESSIONSTORE_TEST_POSTGRES_URL"
START_TIMEOUT_SECONDS = 30.0
"""A boot takes a third of a second; recovery after a kill, or a machine busy with other tests, takes longer."""
STOP_TIMEOUT_SECONDS = 10.0
"""How long each signal is given before the next, harder one."""
POLL_SECONDS = 0.01
BOOT_ATTEMPTS = 5
"""Somebody may take the free port before us; a killed server's last child may hold its memory for a moment."""
PR_SET_PDEATHSIG = 1
"""From Linux's <sys/prctl.h>: the signal this process gets when the thread that started it ends."""

# Loaded before any fork: between fork and exec nothing may be allocated or locked.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Postgres:
    """A server that tests can make databases on.

    Attributes:
        address: where it is and who we are there; its database is the one to issue CREATE DATABASE from.
        version: as it calls itself, "15.18".
    """

    def __init__(self, address: URL, version: str = "") -> None:
        self.address = address
        self.version = version

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of one of its databases, password included."""
        address = self.address.set(drivername="postgresql+asyncpg", database=database)
        return address.render_as_string(hide_password=False)

    async def connect(self, database: str | None = None) -> asyncpg.Connection:
        """A plain driver connection, for set-up and for tests that look behind the library's back."""
        address = self.address.set(drivername="postgresql", database=database or self.address.database)
        return await asyncpg.connect(address.render_as_string(hide_password=False))

    async def create_database(self, name: str, template: str | None = None) -> str:
        """Make a database, empty or a copy of a template that nobody is connected to, and return its URL."""
        await self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template or "template0"}"')
        return self.url(name)

    async def drop_database(self, name: str) -> None:
        """Remove a database, cutting its connections; that it is gone already is fine."""
        await self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def execute(self, statement: str) -> None:
        """Run one statement in the maintenance database, outside any transaction."""
        connection = await self.connect()
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


class GivenPostgres(Postgres):
    """The server named by SESSIONSTORE_TEST_POSTGRES_URL, which we neither start nor stop."""

    @classmethod
    async def connected(cls, url: str) -> Self:
        """Reach the server once, to learn its version and to fail early."""
        server = cls(make_url(url))
        connection = await server.connect()
        try:
            server.version = str(await connection.fetchval("SHOW server_version"))
        finally:
            await connection.close()
        return server


def given_url() -> str | None:
    """The URL of a server to use instead of booting one."""
    return os.environ.get(URL_VARIABLE) or None


class PostgresServer(Postgres):
    """A server of our own: `with PostgresServer() as server: ...`.

    Start it from a thread that lives as long as the server is needed, best the main thread: the kernel ends it when
    that *thread* ends.

    Args:
        fsync: False writes nothing through to the disk, which survives a killed process but not a power cut: right for
            ordinary tests. Benchmarks measure with True.
        settings: of postgresql.conf, on top of ours.
        binaries: instead of what is found.
    """

    def __init__(
        self,
        *,
        fsync: bool = False,
        settings: Mapping[str, str] | None = None,
        binaries: PostgresBinaries | None = None,
    ) -> None:
        self.binaries = binaries or find_binaries()
        address = URL.create("postgresql", "postgres", host="127.0.0.1", database="postgres")
        super().__init__(address, self.binaries.version)
        durable = {} if fsync else {"fsync": "off", "full_page_writes": "off"}
        self._settings = _BASE_SETTINGS | durable | dict(settings or {})
        self._account = server_account()
        self._folder: Path | None = None
        self._programs = self.binaries.folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make an empty cluster and serve it; returns when it accepts connections.

        Raises:
            RuntimeError: it does not come up; the text ends with the server's own log.
        """
        if self._folder is not None:
            msg = "already started"
            raise RuntimeError(msg)
        self._folder = self._account.temporary_folder("sessionstore-postgres-")
        try:
            self._programs = self._runnable_programs(self._folder)
            self._initdb()
            self.address = self.address.set(port=_free_port())
            self._boot(may_move=True)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server, hard if it must be, and remove its folder. Harmless if it is not running."""
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if self._ended_by(number):
                break
        self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def kill(self) -> None:
        """End every process of the server at once, as an out-of-memory killer would; `restart` recovers the data.

        The parent is frozen first, so that it neither tells its children nor starts new ones. A backend left alone
        would go on with its statement and might even commit it.
        """
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGSTOP)
        for child in _children(self._process.pid):
            os.kill(child, signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Serve the same data on the same port again, after a clean stop or a `kill`."""
        if not self._ended_by(signal.SIGINT):
            self.kill()
        self._boot(may_move=False)

    @property
    def is_running(self) -> bool:
        """Whether the server process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the server's parent process."""
        if self._process is None:
            msg = "not started"
            raise RuntimeError(msg)
        return self._process.pid

    @property
    def folder(self) -> Path:
        """Where everything of this server is, until it is stopped."""
        if self._folder is None:
            msg = "not started"
            raise RuntimeError(msg)
        return self._folder

    def log(self) -> str:
        """What the server has written so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    # -- how -----------------------------------------------------------------------------------------------------------

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _runnable_programs(self, folder: Path) -> Path:
        """The programs, copied if our virtual environment lies where the server's account cannot read it."""
        found = self.binaries.folder
        if self._account.can_run(found / "postgres"):
            return found
        if not self.binaries.from_wheel:
            msg = f"the account {self._account.name} cannot run {found / 'postgres'}"
            raise RuntimeError(msg)
        copy = self.binaries.copy_to(folder / "programs")
        self._account.own(folder)
        return copy

    def _initdb(self) -> None:
        command: list[str | Path] = [self._programs / "initdb", "--pgdata", self._data, "--username=postgres"]
        command += ["--auth=trust", "--locale=C", "--encoding=UTF8", "--no-sync"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self._surroundings())
        if done.returncode != 0:
            msg = f"initdb failed as {self._account.name}:\n{done.stdout}{done.stderr}"
            raise RuntimeError(msg)

    def _boot(self, *, may_move: bool) -> None:
        """Start the process and wait for it, a few times if it dies of something that passes."""
        for attempt in range(1, BOOT_ATTEMPTS + 1):
            self._spawn()
            if self._is_ready_in_time():
                return
            self.kill()
            if attempt == BOOT_ATTEMPTS:
                msg = f"PostgreSQL {self.version} from {self._programs} did not start:\n{self.log()}"
                raise RuntimeError(msg)
            if may_move:
                self.address = self.address.set(port=_free_port())
            time.sleep(0.1 * attempt)

    def _spawn(self) -> None:
        # A stale file of a killed server would look like readiness.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        options = self._settings | {"port": str(self.address.port)}
        command: list[str | Path] = [self._programs / "postgres", "-D", self._data]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one system call, loaded beforehand: safe beside threads
                start_new_session=True,  # Ctrl-C in the terminal is for pytest, which then stops us in order
                **self._surroundings(),
            )

    def _surroundings(self) -> dict[str, Any]:
        """Where and as whom the programs run, out of reach of the caller's PostgreSQL variables and locale."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        return {"cwd": self._folder, "env": kept | {"LC_ALL": "C"}} | self._account.popen_arguments()

    def _is_ready_in_time(self) -> bool:
        """Whether the server says "ready" in line 8 of postmaster.pid before it dies or the time is over."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while self.is_running and time.monotonic() < deadline:
            try:
                lines = (self._data / "postmaster.pid").read_text().splitlines()
            except FileNotFoundError:
                lines = []
            if len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready":
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _ended_by(self, number: signal.Signals) -> bool:
        """Whether the process is gone, or goes on this signal soon enough."""
        if self._process is None or self._process.poll() is not None:
            return True
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True


_STATUS_LINE = 7
_BASE_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path would have to be short, and nobody needs it
    "max_connections": "200",  # the concurrency tests hold many at once
    "shared_buffers": "64MB",
    "autovacuum_naptime": "1h",  # would otherwise visit the template while it is being copied
    "log_min_messages": "warning",
}


def _end_with_parent() -> None:
    """Ask the kernel, in the child, for an immediate shutdown of the server once we are gone."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGQUIT), 0, 0, 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children(parent: int) -> list[int]:
    """The process ids of a process's children, where the system tells (Linux)."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The second field is the program's name in brackets and may hold anything; the fourth is the parent.
            after_name = status.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(after_name[1]) == parent:
            found.append(int(status.parent.name))
    return found
