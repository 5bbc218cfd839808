"""Entries of kind indimail: what they switch on, and what is wrong with them in the admin's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import config_files


def entry(text: str, name: str = "10-mine") -> dict[str, str]:
    return {f"plugins.d__{name}_toml": f'kind = "indimail"\n{text}\n'}


def place(folder: Path, *names: str) -> Path:
    there = folder / "so"
    there.mkdir()
    for name in names:
        (there / name).write_bytes(b"\x7fELF")
    return there


def test_one_file(tmp_path: Path):
    """Defaults as plugins.md has them; the name is that of the entry."""
    place(tmp_path, "a.so")
    (plugin,) = config_files.loaded(tmp_path, "", **entry('so = "../so/a.so"')).plugins
    assert (plugin.name, plugin.kind, plugin.order) == ("mine", "indimail", 10)
    assert plugin.code == (tmp_path / "so" / "a.so",)
    assert (plugin.symbol, plugin.refusal, plugin.data_at) == ("plugin_init", "command", "end")
    assert plugin.hooks == ("mail", "rcpt", "message")
    assert (plugin.environment, plugin.on_failure, plugin.mode) == ({}, "disconnect", "enforce")
    assert plugin.limits.message_timeout == plugin.limits.timeout == 5, "data_func is not given the message"


def test_everything_said(tmp_path: Path):
    """Every key of the kind."""
    place(tmp_path, "b.so", "b0.so")
    (tmp_path / "control").mkdir()
    text = """
        dir = "../so"
        base = "b.so"
        symbol = "startup"
        refusal = "session"
        data_at = "command"
        environment = { CONTROLDIR = "/c" }
        on_failure = "defer"
        [grants]
        files = ["../control"]
    """
    (plugin,) = config_files.loaded(tmp_path, "", **entry(text)).plugins
    assert [file.name for file in plugin.code] == ["b.so", "b0.so"]
    assert (plugin.symbol, plugin.refusal, plugin.hooks[-1]) == ("startup", "session", "data")
    assert plugin.environment == {"CONTROLDIR": "/c"} and plugin.files == (tmp_path / "control",)


ROWS = {
    ("p.so", "p0.so", "p1.so"): ["p.so", "p0.so", "p1.so"],
    ("p0.so", "p1.so"): ["p0.so", "p1.so"],
    ("p.so", "p1.so"): ["p.so"],
    ("p0.so", "p1.so", "p3.so"): ["p0.so", "p1.so"],
    tuple(f"p{number}.so" for number in range(12)): [f"p{number}.so" for number in range(12)],
    ("p.so", "p01.so", "px.so", "p.so.bak"): ["p.so"],
}


@pytest.mark.parametrize("there", ROWS, ids=str)
def test_a_row(tmp_path: Path, there: tuple[str, ...]):
    """The base name, then the numbers from 0 up to the first gap; what lies behind a gap is said."""
    place(tmp_path, *there)
    loaded = config_files.loaded(tmp_path, "", **entry('dir = "../so"\nbase = "p.so"'))
    assert [file.name for file in loaded.plugins[0].code] == ROWS[there]
    gap = ("p.so", "p1.so"), ("p0.so", "p1.so", "p3.so")
    assert any("a number before them is missing" in note for note in loaded.notes) == (there in gap)


WRONG = {
    "": ("so", "this key must be set, or dir"),
    'so = "../so/no.so"': ("so", "there is no such file"),
    'dir = "../no"': ("dir", "cannot be read: no such file"),
    'dir = "../so"': ("dir", "there is neither smtpd-plugin.so nor smtpd-plugin0.so in it"),
    'dir = "../so"\nbase = "x/a.so"': ("base", "the name of a .so file in dir"),
    'so = "../so/a.so"\ndir = "../so"': ("dir", "is a file (so) already"),
    'so = "../so/a.so"\nbase = "a.so"': ("base", "so names the file"),
    'so = "../so/a.so"\nsymbol = "a-b"': ("symbol", "name of a C function"),
    'so = "../so/a.so"\nrefusal = "never"': ("refusal", '"command" or "session"'),
    'so = "../so/a.so"\ndata_at = "start"': ("data_at", '"end" or "command"'),
    'so = "../so/a.so"\nplugin = "mark"': ("plugin", 'for plugins of kind "python"'),
    'so = "../so/a.so"\ngroup = "g"': ("group", 'for plugins of kind "python"'),
    'so = "../so/a.so"\nargv = ["/bin/cat"]': ("argv", 'for plugins of kind "program"'),
    'so = "../so/a.so"\n[limits]\nreuse = 2': ("reuse", "static memory"),
    'so = "../so/a.so"\n[limits]\nfresh = "call"': ("fresh", "static memory"),
    'so = "../so/a.so"\n[settings]\nx = 1': ("settings", 'for plugins of kind "python"'),
    'so = "../so/a.so"\n[grants]\nfiles = ["../no"]': ("files", "there is no such file"),
    'so = "../so/a.so"\n[environment]\n1A = "x"': ("1A", "a variable's name"),
    'so = "../so/a.so"\n[environment]\nTCPREMOTEIP = "x"': ("TCPREMOTEIP", "forkd sets this one"),
    'so = "../so/a.so"\n[environment]\nRELAYCLIENT = ""': ("RELAYCLIENT", "forkd sets this one"),
    'so = "../so/a.so"\n[environment]\nA = 1': ("A", "this is a text in quotes"),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, text: str):
    """With the key that it is about."""
    place(tmp_path, "a.so")
    found = config_files.problem(tmp_path, "", **entry(text))
    key, rule = WRONG[text]
    assert (found.key, rule in found.rule) == (key, True), found.rule


def test_a_file_whose_name_is_no_plugins_name(tmp_path: Path):
    """There is no manifest to take it from."""
    place(tmp_path, "a.so")
    found = config_files.problem(tmp_path, "", **entry('so = "../so/a.so"', "10-My Plugin"))
    assert "NN-name.toml" in found.rule


def test_so_without_a_kind(tmp_path: Path):
    """A hint says what is missing."""
    found = config_files.problem(tmp_path, "", **{"plugins.d__10-x_toml": 'so = "/a.so"\n'})
    assert found.hint == 'write kind = "indimail", or leave it out'
