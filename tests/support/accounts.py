"""The account a PostgreSQL server runs as: it refuses to be root, and tests in containers often are."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Account", "server_account"]


@dataclass(frozen=True, slots=True)
class Account:
    """Whom to start server programs as: ourselves, or another account if we are root."""

    name: str
    uid: int
    gid: int
    is_other: bool

    def popen_arguments(self) -> dict[str, Any]:
        """Arguments for `subprocess` that make the child this account, without any group of ours."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.is_other else {}

    def can_run(self, program: Path) -> bool:
        """Whether this account can execute the program, all its parent folders included."""
        try:
            command: list[str | Path] = [program, "--version"]
            done = subprocess.run(command, capture_output=True, check=False, cwd="/", **self.popen_arguments())
        except OSError:
            return False
        return done.returncode == 0

    def can_enter(self, folder: Path) -> bool:
        """Whether this account can work in a folder; asked from inside, as `cwd=` would still be set as root."""
        command: list[str | Path] = ["/bin/sh", "-c", 'cd "$0" && test -w .', folder]
        done = subprocess.run(command, capture_output=True, check=False, cwd="/", **self.popen_arguments())
        return done.returncode == 0

    def own(self, folder: Path) -> None:
        """Give a folder and everything in it to this account."""
        if self.is_other:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def temporary_folder(self, prefix: str) -> Path:
        """A new private folder of this account, in the first place for temporary files that it can enter.

        The configured place may lie below a home folder that only root can enter; no parent's mode is changed.
        """
        for place in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp")):  # noqa: S108 - only parents of mkdtemp
            if Path(place).is_dir() and os.access(place, os.W_OK):
                folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
                self.own(folder)
                if self.can_enter(folder):
                    return folder
                folder.rmdir()
        msg = f"the account {self.name} can enter no folder for temporary files"
        raise RuntimeError(msg)


def server_account() -> Account:
    """Ourselves, unless we are root: then `postgres`, or `nobody`, which every system has.

    Raises:
        RuntimeError: we are root and the system has neither account.
    """
    if os.geteuid() != 0:
        return Account(str(os.geteuid()), os.geteuid(), os.getegid(), is_other=False)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid, is_other=True)
    msg = "PostgreSQL refuses to run as root, and this system has neither an account postgres nor nobody"
    raise RuntimeError(msg)
