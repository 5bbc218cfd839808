"""Which docstrings has only the source? Those below a field, an attribute, a constant.

Python forgets them: they are read from the text of the class, without running anything.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from types import ModuleType
from typing import Any

import msgspec


@cache
def tree(module: ModuleType) -> ast.Module:
    """A module's source, parsed."""
    return ast.parse(inspect.getsource(module))


@cache
def own_fields(cls: type[Any]) -> dict[str, str]:
    """Fields and attributes that this very class declares (in its body, or in __init__ as self.NAME), in the
    order of the source, each with its docstring or with an empty text."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = _documented(body.body)
    for node in body.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            found |= _documented(node.body)
    return {name: text for name, text in found.items() if not name.startswith("_")}


def fields(cls: type[Any]) -> dict[str, str]:
    """The same with those of its bases; what a class declares anew has its own words, else its base's."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            for name, text in own_fields(base).items():
                found[name] = text or found.get(name, "")
    return found


def _documented(body: list[ast.stmt]) -> dict[str, str]:
    """`NAME: type = value`, `self.NAME = value`, each with the text that stands below it."""
    found: dict[str, str] = {}
    for at, node in enumerate(body):
        target: ast.expr | None = None
        if isinstance(node, ast.AnnAssign):
            target = node.target
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
        if isinstance(target, ast.Attribute):
            name = target.attr
        elif isinstance(target, ast.Name) and isinstance(node, ast.AnnAssign):
            name = target.id
        else:
            continue
        below = body[at + 1] if at + 1 < len(body) else None
        text = ""
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            text = inspect.cleandoc(str(below.value.value))
        found[name] = text
    return found


def called(function: ast.FunctionDef) -> str:
    """A function as it is called: names and defaults, without types."""
    arguments = function.args
    plain = [argument.arg for argument in arguments.args if argument.arg != "self"]
    shown = plain[:]
    for at, default in enumerate(reversed(arguments.defaults), 1):
        shown[-at] += f"={ast.unparse(default)}"
    if arguments.vararg:
        shown.append(f"*{arguments.vararg.arg}")
    elif arguments.kwonlyargs:
        shown.append("*")
    for argument, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        shown.append(argument.arg + (f"={ast.unparse(value)}" if value else ""))
    if arguments.kwarg:
        shown.append(f"**{arguments.kwarg.arg}")
    return f"{function.name}({', '.join(shown)})"


def functions(node: ast.Module | ast.ClassDef) -> dict[str, ast.FunctionDef]:
    """Public functions or methods that have a docstring."""
    return {
        one.name: one
        for one in node.body
        if isinstance(one, ast.FunctionDef) and not one.name.startswith("_") and ast.get_docstring(one)
    }


def class_of(module: ModuleType, name: str) -> ast.ClassDef:
    """The class of that name."""
    return next(node for node in tree(module).body if isinstance(node, ast.ClassDef) and node.name == name)
