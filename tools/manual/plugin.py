"""forkd-plugin(7): how a plugin is written, what it may ask and answer, what its manifest says."""

from __future__ import annotations

import ast
from types import ModuleType
from typing import Final

import forkd.sdk
from forkd.config import manifest_schema
from forkd.config.schema import Manifest
from forkd.hooks.spec import HOOKS
from forkd.sdk import (
    address,
    capabilities,
    cdb,
    connection,
    edits,
    fakes,
    faults,
    headers,
    listfile,
    mime,
    plugin,
    testing,
    verdicts,
    views,
)
from tools.manual import schema, source, words
from tools.manual.roff import Page, bold, italic, marked

_REPLIES: Final = "With what each is called, and what it may answer; edits and some verdicts need a power."

_MANIFEST: Final = """\
plugin.toml says what the plugin is and what it wants. It is read without running the plugin, and its
admin grants what it wants, or not; a grant beyond the wants gives nothing.
"""

_CLASSES: Final[tuple[tuple[str, ModuleType, tuple[str, ...]], ...]] = (
    ("What a hook sees", views, ("Session", "Envelope", "Message")),
    ("Addresses", address, ("Address",)),
    ("Header fields", headers, ("Headers",)),
    ("Names, kept state, connections", capabilities, ("Dns", "DnsAnswer", "State")),
    ("", connection, ("Connection",)),
)

_MODULES: Final[tuple[ModuleType, ...]] = (mime, listfile, cdb, testing, fakes, faults)


_WANTED: Final = (
    manifest_schema.Wanted,
    manifest_schema.WantedNames,
    manifest_schema.WantedDomains,
    manifest_schema.WantedDns,
    manifest_schema.WantedConnect,
    manifest_schema.WantedThreads,
)


def page(made: Page) -> Page:
    """All of forkd-plugin(7) on that page."""
    made.heading("Name")
    made.paragraph(r"forkd\-plugin \- how plugins for forkd are written")
    made.heading("Description")
    words.write(made, words.below_question(forkd.sdk.__doc__))
    made.heading("Hooks")
    made.paragraph(marked(_REPLIES))
    for name, hook in HOOKS.items():
        made.term(f"{bold(name)}({italic(', '.join(plugin.ARGUMENTS[name]))})")
        made.further(_answers(hook.verdicts, hook.edits))
    made.heading("Verdicts")
    _functions(made, verdicts)
    made.heading("Edits")
    _functions(made, edits)
    for heading, module, classes in _CLASSES:
        if heading:
            made.heading(heading)
        for name in classes:
            _class(made, module, name)
    made.heading("plugin.toml")
    schema.write_sections(made, schema.sections(Manifest, about=_MANIFEST))
    made.subheading("Wants with more to say than a reason")
    seen: set[str] = set()
    for cls in _WANTED:
        keys = [name for name in source.own_fields(cls) if name not in seen]
        schema.write_keys(made, cls, keys)
        seen.update(keys)
    made.heading("Modules")
    for module in _MODULES:
        made.subheading(module.__name__)
        words.write(made, module.__doc__ or "")
        _functions(made, module)
    made.heading("See also")
    made.paragraph(r"\fBforkd\fR(8), whose \fBforkd plugin\fR makes, checks, tests and measures plugins;")
    made.further(
        r"\fBforkd.toml\fR(5), for plugins.d; plugins/README.md in the sources, a guide with examples"
    )
    return made


def _answers(verdicts_: frozenset[str], edits_: frozenset[str]) -> str:
    if not verdicts_:
        return "No answer."
    order = list(source.functions(source.tree(verdicts)))
    said = "None, " + ", ".join(bold(name) for name in order if name in verdicts_)
    python = {"rewrite_recipient": "rewrite"}
    changes = [python.get(name, name) for name in sorted(edits_) if name != "replace_message"]
    return said + ("; edits " + ", ".join(bold(name) for name in changes) if changes else "")


def _functions(made: Page, module: ModuleType) -> None:
    """Those that are promised: in __all__ of the module, or of forkd.sdk."""
    promised = set(getattr(module, "__all__", forkd.sdk.__all__))
    for name, node in source.functions(source.tree(module)).items():
        if name in promised:
            _function(made, node)


def _function(made: Page, node: ast.FunctionDef, of: str = "") -> None:
    name, bracket, rest = source.called(node).partition("(")
    property_ = any(isinstance(one, ast.Name) and one.id == "property" for one in node.decorator_list)
    made.term(bold(f"{of}{name}") if property_ else f"{bold(of + name)}{bracket}{italic(rest[:-1])})")
    words.write(made, ast.get_docstring(node) or "", below_term=True)


def _class(made: Page, module: ModuleType, name: str) -> None:
    """Attributes in the order of the source, then properties and methods."""
    made.subheading(f"class {name}")
    node = source.class_of(module, name)
    words.write(made, ast.get_docstring(node) or "")
    for attribute, text in source.own_fields(getattr(module, name)).items():
        made.term(bold(attribute))
        words.write(made, text, below_term=True)
    for method in source.functions(node).values():
        _function(made, method, of=".")
