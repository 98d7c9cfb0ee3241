"""The distributions of this checkout, and an environment with its wheel: built once a run, used by all tests here."""

from __future__ import annotations

import pytest

from tests.packaging import environments
from tests.packaging.environments import ROOT, Built, Environment


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The wheel and the sdist."""
    return environments.build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and its dependencies."""
    made = environments.make_environment(tmp_path_factory.mktemp("installed"))
    environments.install(made, built.wheel)
    return made
