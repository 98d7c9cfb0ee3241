"""The installed wheel, used from a directory that has nothing to do with the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from sessionstore.schema import REVISION
from tests.packaging.environments import PROJECT, ROOT, Environment

pytestmark = pytest.mark.processes

USE = """
import asyncio, sys
from sessionstore import SessionRepository, migrate

async def main(url):
    print(await migrate.upgrade(url), await migrate.current(url))
    async with SessionRepository.connect(url) as sessions:
        print(await sessions.append("s", {"role": "user", "content": "h\\u00e9"}, {"role": "tool"}, create=True))
    async with SessionRepository.connect(url) as sessions:
        print((await sessions.messages_json("s")).decode(), await sessions.length("s"))

asyncio.run(main(sys.argv[1]))
"""

MODULES = "import sys, sessionstore; print(*sorted({name.partition('.')[0] for name in sys.modules}))"

WHERE = "import sessionstore.migrate as m; print(m.__file__); print(m.location())"

CHECK = "import asyncio, sys; from sessionstore import migrate; asyncio.run(migrate.check(sys.argv[1]))"


def test_the_package_is_the_installed_one(installed: Environment) -> None:
    file, folder = installed.python_code(WHERE).splitlines()
    package = installed.site_packages / PROJECT
    assert (Path(file), Path(folder)) == (package / "migrate.py", package / "_alembic" / "migrations")


def test_its_metadata_tells_its_version(installed: Environment) -> None:
    found = installed.python_code("from importlib.metadata import version; print(version('sessionstore'))")
    assert found == distribution(PROJECT).version


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_migrate_append_and_read(installed: Environment, request: pytest.FixtureRequest, database: str) -> None:
    if database == "sqlite":
        url = f"sqlite:///{installed.elsewhere / 'used.db'}"
    else:
        url = request.getfixturevalue("postgres_empty")
    migrated, appended, read = installed.python_code(USE, url).splitlines()
    assert migrated == f"{REVISION} {REVISION}"
    assert appended == "[0, 1]"
    assert read == '[{"role":"user","content":"h\u00e9"},{"role":"tool"}] 2'


def test_importing_warns_of_nothing_and_loads_neither_the_command_line_nor_alembic(installed: Environment) -> None:
    loaded = set(installed.python_code(MODULES).split())
    assert PROJECT in loaded
    assert not loaded & {"alembic", "mako", "typer", "click", "rich"}


def test_python_sees_no_mistake_in_the_sources(installed: Environment) -> None:
    package = str(installed.site_packages / PROJECT)
    compiled = installed.run("python", "-I", "-W", "error", "-m", "compileall", "-q", "-f", package)
    assert compiled.status == 0, compiled.output
    assert installed.python_code("import sessionstore", options=("-X", "dev")) == ""


def test_alembic_runs_with_the_ini_file_of_the_wheel(installed: Environment) -> None:
    ini = installed.site_packages / PROJECT / "_alembic" / "alembic.ini"
    url = f"sqlite:///{installed.elsewhere / 'by_alembic.db'}"
    up = installed.run("python", "-m", "alembic", "-c", str(ini), "-x", f"url={url}", "upgrade", "head")
    assert up.status == 0, up.errors
    assert installed.python_code(CHECK, url) == ""


def test_the_command_line_works(installed: Environment, tmp_path: Path) -> None:
    source = tmp_path / "sessions.jsonl"
    source.write_text(json.dumps({"id": "s", "messages": [{"role": "user", "content": "hi"}]}) + "\n")
    url = f"sqlite:///{tmp_path / 'sessions.db'}"

    def command(*arguments: str) -> str:
        ended = installed.run("sessionstore", *arguments, SESSIONSTORE_DATABASE_URL=url)
        assert ended.status == 0, ended.errors
        return ended.output

    command("db", "upgrade")
    assert REVISION in command("db", "current")
    command("import", str(source))
    assert [row["id"] for row in json.loads(command("list", "--json"))["sessions"]] == ["s"]
    assert json.loads(command("export", "-"))["messages"] == [{"role": "user", "content": "hi"}]
    assert command("demo")


def test_the_module_is_the_command_line(installed: Environment) -> None:
    versions = {
        installed.run(*program, "--version").output
        for program in (("sessionstore",), ("python", "-I", "-m", "sessionstore"))
    }
    assert versions == {f"sessionstore {distribution(PROJECT).version}\n"}


def test_an_editable_install_uses_the_migrations_of_the_checkout() -> None:
    """The environment of this run is one: `make` installs the project so."""
    about = json.loads(distribution(PROJECT).read_text("direct_url.json") or "{}")
    assert about.get("dir_info", {}).get("editable"), "the tests run in an environment made by `make venv`"
    ended = subprocess.run([sys.executable, "-I", "-c", WHERE], cwd="/", capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [str(ROOT / "sessionstore" / "migrate.py"), str(ROOT / "migrations")]
