"""How are the log's lines shown? The functions of forkd/log*.py that write one, from their source.

The event's name is the first constant text in the call of write() or often(); its fields are the function's
arguments, those that are left out when empty in brackets.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator

import forkd
from forkd.logacts import ACTS
from tools.manual import source, words
from tools.manual.roff import Page, bold, italic

_LEVELS = ("debug", "info", "warning", "error")
_NOT_FIELDS = ("level", "fields")


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One kind of line."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    text: str


def every_event() -> list[Event]:
    """Those of log.py, then those of the modules beside it, in the order of the source."""
    modules = [name for _, name, _ in pkgutil.iter_modules(forkd.__path__) if name.startswith("log")]
    modules.sort(key=lambda name: (name != "log", name))
    found: dict[str, Event] = {}
    for name in modules:
        for node in source.functions(source.tree(importlib.import_module(f"forkd.{name}"))).values():
            event = _event(node)
            if event is not None:
                found.setdefault(event.name, event)
    return list(found.values())


def write_events(page: Page) -> None:
    """Each as a term; a mail's own story first."""
    first = ("session", "message", "refused", "delivery")
    events = sorted(every_event(), key=lambda event: first.index(event.name) if event.name in first else 9)
    for event in events:
        page.term(bold(event.name))
        fields = [italic(name) for name in event.required]
        fields += [f"[{italic(name)}]" for name in event.optional]
        page.further(" ".join(fields))
        acts = ACTS[event.name][1] if event.name in ACTS else {}
        told = [f"{act}  {meaning}" for act, meaning in acts.items()]
        text = "\n\n".join([event.text, "`act` is:", "\n".join(told)]) if told else event.text
        words.write(page, text, below_term=True)


def _event(node: ast.FunctionDef) -> Event | None:
    name = next(_names(node), "")
    text = ast.get_docstring(node)
    if not name or not text or name == "debug":
        return None
    arguments = node.args
    plain = arguments.args
    required = [argument.arg for argument in plain]
    optional: list[str] = []
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if argument.arg not in _NOT_FIELDS:
            (required if default is None else optional).append(argument.arg)
    return Event(name, tuple(required), tuple(optional), text)


def _names(node: ast.FunctionDef) -> Iterator[str]:
    for call in ast.walk(node):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            continue
        if call.func.id == "often":
            place = 0
        elif call.func.id == "write":
            place = 1
        else:
            continue
        said = call.args[place]
        if isinstance(said, ast.Constant) and said.value not in _LEVELS:
            yield str(said.value)
