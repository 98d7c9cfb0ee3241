"""PgBouncer for tests: a private one on loopback, before a server that tests can make databases on."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Final, Self

from sqlalchemy import make_url

from tests.support import postgres
from tests.support.accounts import server_account

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.support.postgres import Postgres

__all__ = ["MISSING", "PgBouncer", "program"]

MISSING: Final = "no pgbouncer: poolers are not tested (on Debian and Ubuntu: apt install pgbouncer)"

POOL: Final = 2
"""Connections of the server for each database and user: few, so that they change hands all the time."""

_CONFIGURATION: Final = """
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listening}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
logfile = {folder}/log
pool_mode = {mode}
default_pool_size = {pool}
max_client_conn = 500
"""


def program() -> str | None:
    """Where it is; Debian's place for it is not on everybody's path."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


class PgBouncer:
    """`with PgBouncer(server) as pooler: pooler.url(database_url)`.

    Args:
        mode: of its pools, `transaction` or `session`.
        roles: of the server to let in beside its own account; their passwords are their names.
    """

    def __init__(self, server: Postgres, mode: str = "transaction", roles: Iterable[str] = ()) -> None:
        self.mode = mode
        self._roles = tuple(roles)
        self._server = server
        self._account = server_account()
        self._port = 0
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder = self._account.temporary_folder("sessionstore-pgbouncer-")
        self._port = postgres._free_port()
        try:
            self._configure()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str, *, say: bool = True) -> str:
        """The URL of a database through it; `say` what it is."""
        url = make_url(database).set(host="127.0.0.1", port=self._port)
        return (url.update_query_dict({"pooler": self.mode}) if say else url).render_as_string(hide_password=False)

    def _configure(self) -> None:
        assert self._folder is not None
        owner = self._server.address
        lines = [f'"{owner.username}" "{owner.password or ""}"', *(f'"{role}" "{role}"' for role in self._roles)]
        (self._folder / "users").write_text("\n".join(lines) + "\n")
        where = {"host": owner.host or "127.0.0.1", "port": owner.port or 5432}
        values = {**where, "listening": self._port, "folder": self._folder, "mode": self.mode, "pool": POOL}
        (self._folder / "configuration").write_text(_CONFIGURATION.format(**values))
        self._account.own(self._folder)

    def start(self) -> None:
        """Serve, and return when it does.

        Raises:
            RuntimeError: it does not come up; the text is its own log.
        """
        assert self._folder is not None
        command = [str(program()), "--quiet", str(self._folder / "configuration")]
        self._process = subprocess.Popen(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=postgres._end_with_parent,  # noqa: PLW1509 - as there
            start_new_session=True,
            **self._account.popen_arguments(),
        )
        deadline = time.monotonic() + postgres.START_TIMEOUT_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self._folder / "log"
                msg = f"pgbouncer did not start:\n{log.read_text() if log.exists() else ''}"
                raise RuntimeError(msg)
            time.sleep(postgres.POLL_SECONDS)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def stop(self) -> None:
        """End it at once, with every connection through it. Harmless if it is not running."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
