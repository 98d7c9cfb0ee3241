"""docs/behaviours.md and the promises of README.md: every row has tests, on both databases, and nothing is stale."""

from __future__ import annotations

import pytest

from tests.docs import behaviours
from tests.docs.behaviours import Proof, proofs_of
from tests.docs.rows import ALSO, BEHAVIOURS, MEASURED, NAMELESS, OUTSIDE, PROMISES

NO_DATABASE = {"O21"}
"""Rows about a value that no database ever sees."""


@pytest.fixture(scope="module")
def proofs() -> list[Proof]:
    """The tests that name rows, as pytest collects them."""
    return behaviours.collect()


def test_every_row_has_a_test(proofs: list[Proof]) -> None:
    assert [row for row in BEHAVIOURS if not proofs_of(row, proofs)] == []


def test_every_row_is_tested_on_both_databases(proofs: list[Proof]) -> None:
    rows = {row: {name for proof in proofs_of(row, proofs) for name in proof.databases} for row in BEHAVIOURS}
    partly = {row: found for row, found in rows.items() if row not in NO_DATABASE and len(found) < 2}
    assert partly == {}


def test_no_test_names_a_row_that_is_not_there(proofs: list[Proof]) -> None:
    unknown = {proof.test: set(proof.rows) - BEHAVIOURS.keys() - PROMISES.keys() for proof in proofs}
    assert {test: rows for test, rows in unknown.items() if rows} == {}


def test_tests_that_are_named_here_exist(proofs: list[Proof]) -> None:
    assert NAMELESS.keys() <= {proof.test for proof in proofs}


def test_the_page_is_up_to_date(proofs: list[Proof]) -> None:
    assert behaviours.PAGE.read_text() == behaviours.page(proofs), "run python -m tests.docs.behaviours"


def test_the_promises_are_up_to_date(proofs: list[Proof]) -> None:
    assert behaviours.README.read_text() == behaviours.readme(), "run python -m tests.docs.behaviours"
    assert behaviours.GUARANTEES.read_text() == behaviours.guarantees(proofs), "run python -m tests.docs.behaviours"


def test_every_promise_has_tests_a_figure_and_a_border(proofs: list[Proof]) -> None:
    rows = {promise: (promise, *ALSO.get(promise, ())) for promise in PROMISES}
    assert [promise for promise, named in rows.items() if not any(proofs_of(row, proofs) for row in named)] == []
    assert list(PROMISES) == list(MEASURED) == list(OUTSIDE)


def test_a_row_without_a_test_would_be_noticed(proofs: list[Proof]) -> None:
    without = [proof for proof in proofs if "O05" not in proof.rows]
    assert "| O05 | `save` keeps the transcript's `updated_at` | **nothing** |  |" in behaviours.page(without)
