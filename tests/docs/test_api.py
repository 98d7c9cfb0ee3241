"""docs/api.md: every public name with its signature, the errors, the limits, and what moves what."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import timedelta
from typing import Any, Final

import pytest

import sessionstore
from sessionstore import UNSET, SessionStoreError, StoreSettings, limits, migrate
from tests.docs.markdown import blocks, read, rows, sections

PAGE = "docs/api.md"

EVALUATED: Final = {"UNSET": UNSET, "StoreSettings": StoreSettings, "timedelta": timedelta}


def _documented() -> dict[str, list[ast.stmt]]:
    """The members of each class on the page."""
    found: dict[str, list[ast.stmt]] = {}
    for block in blocks("python", PAGE):
        for node in ast.parse(block.code).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).extend(node.body)
    return found


DOCUMENTED: Final = _documented()


def _public(kind: type) -> set[str]:
    """What a class of ours offers, with what it inherits from classes of ours."""
    ours = [each for each in kind.__mro__ if each.__module__.startswith("sessionstore")]
    return {name for each in ours for name in vars(each) if not name.startswith("_") and not _is_slot(each, name)}


def _is_slot(kind: type, name: str) -> bool:
    """Fields of slotted dataclasses are documented as fields."""
    return is_dataclass(kind) and name in {field.name for field in fields(kind)}


def test_every_public_name_is_on_the_page() -> None:
    text = read(PAGE)
    assert [name for name in sessionstore.__all__ if f"`{name}" not in text and f"class {name}" not in text] == []


def test_every_function_of_the_migrations_is_on_the_page() -> None:
    written: dict[str, list[tuple[str, Any]]] = {}
    for row in rows(sections(read(PAGE))["Migrations"])[1:]:
        call = ast.parse(row[0].strip("`").removeprefix("await "), mode="eval").body
        assert isinstance(call, ast.Call)
        keywords = [(str(each.arg), ast.literal_eval(each.value)) for each in call.keywords]
        written[ast.unparse(call.func)] = [
            (ast.unparse(each), inspect.Parameter.empty) for each in call.args
        ] + keywords
    of_code = {
        f"migrate.{name}": inspect.signature(getattr(migrate, name)) for name in migrate.__all__ if name != "Migration"
    }
    assert written == {
        name: [(each.name, each.default) for each in signature.parameters.values()]
        for name, signature in of_code.items()
    }


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_members_are_those_of_the_class(name: str) -> None:
    kind = getattr(sessionstore, name)
    written = {_name_of(node) for node in DOCUMENTED[name]} - {"__init__"}
    expected = _public(kind) | ({field.name for field in fields(kind)} if is_dataclass(kind) else set())
    if name == "DocumentRepository":
        expected -= _public(sessionstore.SessionRepository)
        expected.add("delete")
    assert written == expected


def test_every_class_but_errors_is_spelt_out() -> None:
    classes = {name for name in sessionstore.__all__ if isinstance(getattr(sessionstore, name), type)}
    errors = {name for name in classes if issubclass(getattr(sessionstore, name), Exception)}
    assert classes - errors == set(DOCUMENTED)


@pytest.mark.parametrize(
    ("name", "node"),
    [(name, node) for name, body in DOCUMENTED.items() for node in body],
    ids=lambda value: value if isinstance(value, str) else _name_of(value),
)
def test_a_signature_is_that_of_the_code(name: str, node: ast.stmt) -> None:
    kind = getattr(sessionstore, name)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        _check_function(inspect.getattr_static(kind, node.name), node)
    else:
        assert isinstance(node, ast.AnnAssign)
        _check_attribute(kind, node)


def _check_function(member: Any, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    is_classmethod = isinstance(member, classmethod)
    function: Callable[..., Any] = member.__func__ if is_classmethod else member
    assert [ast.unparse(each) for each in node.decorator_list] == ["classmethod"] * is_classmethod
    asynchronous = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    assert isinstance(node, ast.AsyncFunctionDef) == asynchronous
    namespace: dict[str, Any] = dict(EVALUATED)
    exec(ast.unparse(node), namespace)  # noqa: S102  # of our own page
    written = namespace[node.name]
    assert _parameters(written.__func__ if is_classmethod else written) == _parameters(function)


def _parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


def _check_attribute(kind: type, node: ast.AnnAssign) -> None:
    name = ast.unparse(node.target)
    of_class = {field.name: field for field in fields(kind)} if is_dataclass(kind) else {}
    if name in of_class:
        field: Field[Any] = of_class[name]
        assert ast.unparse(node.annotation) == _normal(str(field.type))
        if node.value is not None:
            assert eval(ast.unparse(node.value), dict(EVALUATED)) == field.default  # noqa: S307  # of our own page
        else:
            assert field.default is MISSING
    else:
        attribute = inspect.getattr_static(kind, name)
        assert isinstance(attribute, property)
        assert ast.unparse(node.annotation) == _normal(getattr(attribute.fget, "__annotations__", {})["return"])


def _normal(annotation: str) -> str:
    """An annotation with the quotes and blanks that `ast.unparse` gives."""
    return ast.unparse(ast.parse(annotation, mode="eval"))


def _name_of(node: object) -> str:
    if isinstance(node, ast.AnnAssign):
        return ast.unparse(node.target)
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return node.name


def test_every_error_is_in_the_table_with_its_attributes() -> None:
    table = {row[0].strip("`"): set(row[2].replace("`", "").split(", ")) - {""} for row in _errors()}
    public = {name: getattr(sessionstore, name) for name in sessionstore.__all__}
    errors = {name: kind for name, kind in public.items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert set(table) == set(errors) - {"SessionStoreError"}
    for name, attributes in table.items():
        declared = {entry for kind in errors[name].__mro__ for entry in getattr(kind, "__annotations__", {})}
        assert attributes == declared, name
        assert issubclass(errors[name], SessionStoreError)


def _errors() -> list[list[str]]:
    return [row for row in rows(sections(read(PAGE))["Errors"]) if row[0].startswith("`")]


LIMITS: Final = {
    "id, name, key, role": f"{limits.ID_CHARS} characters, {limits.ID_BYTES} bytes",
    "body": f"{limits.BODY_BYTES >> 20} MiB (`max_body_bytes`)",
    "bodies of one append": (
        f"{limits.CALL_BYTES >> 20} MiB (`max_call_bytes`), {limits.BATCH:,} messages (`max_batch`)"
    ),
    "nesting": f"{limits.DEPTH} levels (`max_depth`)",
    "integer": f"{limits.INTEGER_DIGITS:,} digits",
    "metadata value": f"{limits.METADATA_BYTES >> 10} KiB encoded",
    "metadata keys of one call": f"{limits.METADATA_KEYS:,}",
    "metadata conditions of one listing": f"{limits.METADATA_FILTERS}",
    "page of a listing": f"{limits.PAGE_MAX:,} sessions",
    "`session_cap`": f"{limits.SESSION_CAP_MAX:,}",
    "events of one call": f"{limits.EVENTS_PAGE:,}",
    "payload of an event": "as a body",
    "watchers of a process": f"{limits.WATCHERS:,} (`max_watchers`)",
    "what waits for a watcher": f"{limits.LAG_CHANGES} changes, {limits.LAG_BYTES >> 20} MiB of messages",
    "PostgreSQL connections of one `connect()`": f"{limits.POSTGRES_CONNECTIONS}",
}


def test_the_limits_are_those_of_the_code() -> None:
    assert {row[0]: row[1] for row in rows(sections(read(PAGE))["Limits"])[1:]} == LIMITS
