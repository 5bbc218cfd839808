"""Who may import whom: the table of the design, held over the parsed imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "forkd"

# package or module -> what of forkd it may import (prefixes)
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "forkd.smtp": ("forkd.smtp",),
    "forkd.rpc": ("forkd.rpc",),
    "forkd.fs": (),
    "forkd.exits": (),
    "forkd.sealed": (),
    "forkd.metrics": (),
    "forkd.metrics_slot": ("forkd.metrics", "forkd.sealed"),
    "forkd.metrics_events": ("forkd.metrics", "forkd.metrics_slot"),
    "forkd.log": (
        "forkd.logacts",
        "forkd.logjournal",
        "forkd.logline",
        "forkd.logmail",
        "forkd.logsink",
        "forkd.logwriter",
    ),
    "forkd.logmail": ("forkd.logacts", "forkd.logwriter"),
    "forkd.logacts": (),
    "forkd.logwriter": ("forkd.logjournal", "forkd.logline", "forkd.logsink"),
    "forkd.logline": ("forkd.logjournal",),
    "forkd.logjournal": (),
    "forkd.logsink": (),
    "forkd.sdk": ("forkd.sdk",),
    "forkd.auth": ("forkd.auth", "forkd.config", "forkd.exits", "forkd.fs", "forkd.log", "forkd.smtp"),
    "forkd.message": (
        "forkd.message",
        "forkd.smtp.address",
        "forkd.smtp.reply",
        "forkd.smtp.xtext",  # ENVID and ORCPT travel in it
        "forkd.sdk.headers",
    ),
    "forkd.hooks": (
        "forkd.hooks",
        "forkd.sdk",
        "forkd.smtp.reply",
        "forkd.smtp.address",
        "forkd.smtp.grammar",  # addresses that plugins write are read as strictly as a client's
        "forkd.rpc.calls",
        "forkd.log",
    ),
    "forkd.queue": ("forkd.queue", "forkd.fs", "forkd.smtp.address", "forkd.log"),
    "forkd.deliver": (
        "forkd.deliver",
        "forkd.lookups",
        "forkd.queue",
        "forkd.smtp",
        "forkd.message",
        "forkd.fs",
        "forkd.sealed",
        "forkd.log",
        "forkd.config",
    ),
    "forkd.config": (
        "forkd.config",
        "forkd.smtp.address",
        "forkd.exits",
        "forkd.sdk.cdb",  # qmail's control files
        "forkd.sdk.qmail_list",  # ... and what a line of its lists means
    ),
    "forkd.worker": (
        "forkd.metrics",
        "forkd.metrics_slot",
        "forkd.metrics_events",
        "forkd.worker",
        "forkd.auth",
        "forkd.smtp",
        "forkd.message",
        "forkd.hooks",
        "forkd.sandbox.host",
        "forkd.sandbox.output",  # how a password looks in what a plugin printed
        "forkd.rpc",
        "forkd.queue",
        "forkd.probe",
        "forkd.config",
        "forkd.lookups.servers",
        "forkd.sdk.headers",
        "forkd.sealed",
        "forkd.fs",  # crash records: whole files, and room made for them
        "forkd.log",
        "forkd.exits",
    ),
    "forkd.qmgr": (
        "forkd.metrics",
        "forkd.metrics_slot",
        "forkd.metrics_events",
        "forkd.qmgr",
        "forkd.lookups",
        "forkd.queue",
        "forkd.deliver",
        "forkd.message",
        "forkd.smtp",
        "forkd.rpc",
        "forkd.config",
        "forkd.fs",
        "forkd.log",
        "forkd.exits",
        "forkd.sandbox.host",
    ),
    "forkd.probe": ("forkd.probe", "forkd.config", "forkd.sdk"),
    "forkd.admin": (
        "forkd.metrics",
        "forkd.metrics_slot",
        "forkd.admin",
        "forkd.rpc",
        "forkd.config",
        "forkd.log",
        "forkd.exits",
    ),
    "forkd.lookups": ("forkd.lookups", "forkd.config", "forkd.log"),
    "forkd.broker": (
        "forkd.metrics",
        "forkd.metrics_slot",
        "forkd.metrics_events",
        "forkd.broker",
        "forkd.lookups",
        "forkd.rpc",
        "forkd.config",
        "forkd.log",
        "forkd.exits",
    ),
    "forkd.launcher": ("forkd.launcher", "forkd.rpc", "forkd.config", "forkd.log", "forkd.exits"),
    "forkd.anvil": ("forkd.anvil", "forkd.rpc", "forkd.config", "forkd.log", "forkd.exits"),
    "forkd.master": (
        "forkd.metrics",
        "forkd.metrics_slot",
        "forkd.metrics_events",
        "forkd.master",
        "forkd.probe",
        "forkd.config",
        "forkd.rpc",
        "forkd.log",
        "forkd.exits",
        "forkd.sandbox.audit",
        "forkd.sandbox.launch",
        "forkd.sandbox.policy",
        "forkd.sandbox.processes",
        "forkd.sandbox.selftest",
        "forkd.sandbox.executables",
        "forkd.sandbox.confine",
        "forkd.sandbox.landlock",
        "forkd.sandbox.linux",
        "forkd.sandbox.role_syscalls",
        "forkd.sandbox.role_walls",
        "forkd.auth.users",  # a users file that cannot be read stops start-up, not the first login
        "forkd.queue.spool",  # makes the folders before ids are dropped
        "forkd.sealed",
    ),
    "forkd.kit": (
        "forkd.kit",
        "forkd.broker",
        "forkd.config",
        "forkd.exits",
        "forkd.hooks",
        "forkd.log",
        "forkd.message",
        "forkd.rpc",
        "forkd.sandbox.calls",
        "forkd.sandbox.host",
        "forkd.sandbox.launch",
        "forkd.sandbox.learn",
        "forkd.sandbox.learn_policy",
        "forkd.sandbox.refusal",
        "forkd.sandbox.linux",  # floor/ is a plugin: it runs in a zygote
        "forkd.sandbox.policy",
        "forkd.sandbox.report",
        "forkd.sdk",
        "forkd.smtp",
        "forkd.sealed",
    ),
    "forkd.cli": (
        "forkd.cli",
        "forkd.kit",
        "forkd.auth",
        "forkd.config",
        "forkd.exits",
        "forkd.log",
        "forkd.master",
        "forkd.rpc",
        "forkd.queue",  # export, and a look at the spool where no forkd runs
        "forkd.message.edits",
        "forkd.qmgr.requests_look",
        "forkd.qmgr.requests_pages",
        "forkd.admin.trace_file",  # explain, where no forkd runs
    ),
}

ZYGOTE_SIDE = (
    "boot",
    "zygote",
    "child",
    "confine",
    "crowd",
    "indimail",
    "indimail_abi",
    "indimail_reply",
    "indimail_trial",
    "landlock",
    "learner",
    "linux",
    "probe",
    "program",
    "python",
    "tries",
    "wire",
)
"""Modules of forkd.sandbox that run under a plugin's interpreter."""

NEVER: dict[str, tuple[str, ...]] = {
    "forkd.smtp": ("socket", "asyncio", "os", "time", "logging", "threading", "select"),
    "forkd.sdk": ("asyncio", "ssl", "threading", "logging", "msgspec"),
}
ZYGOTE_NEVER = ("msgspec", "asyncio", "ssl", "threading", "logging", "structlog", "click", "uvloop")


def imports(path: Path) -> list[tuple[str, int]]:
    """Every module that a file imports, with its line; imports for type checking too."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def modules() -> list[tuple[str, Path]]:
    return [
        (".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"), path)
        for path in sorted(ROOT.rglob("*.py"))
        if "_share" not in path.parts
    ]


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


@pytest.mark.parametrize(("name", "path"), modules(), ids=[name for name, _ in modules()])
def test_a_module_imports_only_what_its_package_may(name: str, path: Path):
    """Table "Who may import whom"; `import forkd` alone (the version) is free."""
    package = ".".join(name.split(".")[:2])
    if package == "forkd.sandbox":
        leaf = name.rpartition(".")[2]
        if leaf in ZYGOTE_SIDE:
            allowed = (*(f"forkd.sandbox.{m}" for m in ZYGOTE_SIDE), "forkd.sdk", "forkd.exits")
        elif leaf == "program_plugin":  # a program does not speak our protocol: the SDK does, here
            allowed = ("forkd.sandbox", "forkd.rpc", "forkd.sdk")
        elif leaf.startswith("host"):
            allowed = ("forkd.rpc", "forkd.log", "forkd.sandbox")
        else:
            allowed = ("forkd.sandbox", "forkd.rpc", "forkd.exits", "forkd.log")
    elif package in ("forkd", "forkd.__main__"):
        allowed = ("forkd.cli",)
    else:
        allowed = MAY_IMPORT[package]
    wrong = [
        f"{path.name}:{line} imports {module}"
        for module, line in imports(path)
        if module.startswith("forkd.") and not within(module, allowed)
    ]
    assert not wrong


@pytest.mark.parametrize(("name", "path"), modules(), ids=[name for name, _ in modules()])
def test_a_module_keeps_away_from_what_its_package_must_not_touch(name: str, path: Path):
    """Sans-I/O stays sans-I/O; what runs under any plugin's interpreter stays lean."""
    package = ".".join(name.split(".")[:2])
    never = NEVER.get(package, ())
    if package == "forkd.sandbox" and name.rpartition(".")[2] in ZYGOTE_SIDE:
        never = ZYGOTE_NEVER
    wrong = [
        f"{path.name}:{line} imports {module}" for module, line in imports(path) if within(module, never)
    ]
    assert not wrong


def test_package_docstrings_import_nothing():
    """A package's __init__ is its design page; the SDK's re-exports are the one exception."""
    for name, path in modules():
        if path.name == "__init__.py" and name not in ("forkd", "forkd.sdk", "forkd.cli"):
            tree = ast.parse(path.read_text())
            assert ast.get_docstring(tree), f"{name} has no docstring"
            assert not [m for m, _ in imports(path) if m != "__future__"], f"{name} imports something"
