"""What does a plugin's code use that needs a grant? Read from its source; nothing is run.

Only what can be known: calls of functions imported from forkd.sdk, and session.dns, .state, .connect() under
that name. What is built at run time is not seen, so nothing found means nothing.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from forkd.config.differences import Want
from forkd.config.grants import covers
from forkd.config.plainly import Kind

_BY_FUNCTION: Final[dict[str, tuple[Kind, str]]] = {
    "accept": ("power", "accept"),
    "discard": ("power", "discard"),
    "quarantine": ("power", "quarantine"),
    "ok": ("power", "auth"),
    "add_header": ("power", "edit_headers"),
    "change_header": ("power", "edit_headers"),
    "delete_header": ("power", "edit_headers"),
    "replace_body": ("power", "edit_body"),
    "add_recipient": ("power", "add_recipient"),
    "delete_recipient": ("power", "delete_recipient"),
    "rewrite": ("power", "rewrite_recipient"),
    "change_sender": ("power", "change_sender"),
    "export": ("power", "export"),
}
"""Function of forkd.sdk -> the want without which its answer is refused."""
_NAMED: Final = frozenset({"edit_headers", "export", "connect"})
"""Wants whose first argument says what of it."""
_OF_SESSION: Final = frozenset({"dns", "state", "connect"})
"""Capabilities, as attributes of a session."""


@dataclasses.dataclass(frozen=True, slots=True)
class Use:
    """One place in the code. `item`: a header, fact or target that stands there as text; else empty."""

    kind: Kind
    name: str
    call: str
    where: str
    item: str = ""


def uses(folder: Path) -> list[Use]:
    """Everything found in the modules of a plugin, its tests left out. Raises SyntaxError, OSError."""
    return [use for file, tree in _modules(folder) for use in _uses_of(tree, file)]


def unwanted(found: list[Use], wanted: list[Want]) -> list[Use]:
    """Uses that the manifest does not want: at run time they are refused. The first place of each."""
    result: dict[tuple[str, str], Use] = {}
    for use in found:
        if not any(_covers(want, use) for want in wanted):
            result.setdefault((use.name, use.item), use)
    return list(result.values())


def unused(folder: Path, wanted: list[Want]) -> list[Want]:
    """Wants of the same kinds of which the code says not even the name. Raises as uses() does."""
    said: set[str] = set()
    for _, tree in _modules(folder):
        for node in ast.walk(tree):
            said |= {node.attr} if isinstance(node, ast.Attribute) else set()
            said |= {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
    known: dict[tuple[Kind, str], set[str]] = {("capability", name): {name} for name in _OF_SESSION}
    for function, want_of in _BY_FUNCTION.items():
        known.setdefault(want_of, set()).add(function)
    first: dict[str, Want] = {}
    for want in wanted:
        if (words := known.get((want.kind, want.name))) and not words & said:
            first.setdefault(want.name, want)
    return list(first.values())


def _modules(folder: Path) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        relative = path.relative_to(folder)
        if not any(_left_out(part) for part in relative.parts):
            yield str(relative), ast.parse(path.read_bytes(), filename=str(path))


def _left_out(part: str) -> bool:
    return part.startswith((".", "test")) or part in ("conftest.py", "setup.py", "venv", "site-packages")


def _covers(want: Want, use: Use) -> bool:
    if (want.kind, want.name) != (use.kind, use.name):
        return False
    if not use.item or "setting" in want.item:
        return True
    return covers(want.item, use.item) if use.name == "edit_headers" else want.item == use.item


def _uses_of(tree: ast.Module, file: str) -> Iterator[Use]:
    functions, modules = _imported(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        where = f"{file}:{node.lineno}"
        called = _called(node.func, functions, modules)
        if called in _BY_FUNCTION:
            kind, name = _BY_FUNCTION[called]
            yield Use(kind, name, f"{called}()", where, _item(node) if name in _NAMED else "")
        elif (name := _of_session(node.func)) in _OF_SESSION:
            yield Use("capability", name, f"session.{name}", where, _item(node) if name in _NAMED else "")


def _imported(tree: ast.Module) -> tuple[dict[str, str], set[str]]:
    """Local name -> function of forkd.sdk; and the names under which the module itself is known."""
    functions: dict[str, str] = {}
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("forkd.sdk", "forkd"):
            for alias in node.names:
                local = alias.asname or alias.name
                if node.module == "forkd.sdk":
                    functions[local] = alias.name
                elif alias.name == "sdk":
                    modules.add(local)
        elif isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.name == "forkd.sdk" and alias.asname}
    return functions, modules


def _called(function: ast.expr, functions: dict[str, str], modules: set[str]) -> str:
    if isinstance(function, ast.Name):
        return functions.get(function.id, "")
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return function.attr if function.value.id in modules else ""
    return ""


def _of_session(function: ast.expr) -> str:
    """`dns` of session.dns.a(…), `connect` of session.connect(…)."""
    path: list[str] = []
    while isinstance(function, ast.Attribute):
        path.append(function.attr)
        function = function.value
    return path[-1] if isinstance(function, ast.Name) and function.id == "session" and path else ""


def _item(call: ast.Call) -> str:
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
