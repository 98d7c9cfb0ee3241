"""Disks that are full, and files that may not be written."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.accounts import server_account

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SmallDisk", "other_account", "own_folder", "small_disk"]


class SmallDisk:
    """A disk in memory of some size, which can be made larger while it is in use."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, size: str) -> None:
        """Give it another size."""
        subprocess.run(["mount", "-o", f"remount,size={size}", self.path], check=True, capture_output=True)


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[SmallDisk]:
    """Mount a disk in memory on a folder; skips the test where nobody may mount."""
    path.mkdir()
    command: list[str | Path] = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path]
    mounted = shutil.which("mount") and subprocess.run(command, check=False, capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("mounting a small disk needs the rights of root")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True, capture_output=True)


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A folder of the account that `other_account` lets us be."""
    folder = server_account().temporary_folder("sessionstore-rights-")
    try:
        yield folder
    finally:
        folder.chmod(0o700)
        while folder.exists():
            # The last connection to a file takes the two beside it away, in a thread that ends when it does.
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)


@contextlib.contextmanager
def other_account() -> Iterator[None]:
    """Be an account to which rights apply, in all threads: none does to root."""
    account = server_account()
    if not account.is_other:
        yield
        return
    # Of a process all threads change at once; only who we may act as, so that we can go back.
    os.setegid(account.gid)
    os.seteuid(account.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
