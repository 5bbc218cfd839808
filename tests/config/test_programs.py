"""Entries of kind program: forkd/config/programs.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkd.config.load import LoadedConfig
from forkd.config.problems import Problem
from forkd.config.schema import Capabilities, PluginConfig, Powers
from tests.support import config_files

CAT = 'kind = "program"\nargv = ["/bin/cat"]\n'


def loaded(folder: Path, entry: str = CAT, name: str = "10-mine") -> LoadedConfig:
    return config_files.loaded(folder, "", **{f"plugins.d__{name}_toml": entry})


def plugin(folder: Path, entry: str = CAT, name: str = "10-mine") -> PluginConfig:
    (only,) = loaded(folder, entry, name).plugins
    return only


def problem(folder: Path, entry: str, name: str = "10-mine") -> Problem:
    return config_files.problem(folder, "", **{f"plugins.d__{name}_toml": entry})


def test_a_program_is_a_filter_and_nothing_else(tmp_path: Path):
    """It reads messages and replaces them; dropping mail is what needs a grant of its own."""
    mine = plugin(tmp_path)
    assert (mine.name, mine.kind, mine.order, mine.hooks) == ("mine", "program", 10, ("message",))
    assert (mine.argv, mine.code, mine.environment) == (("/bin/cat",), (Path("/bin/cat"),), {})
    assert mine.powers == Powers(replace_message=True)
    assert mine.reads == ("envelope", "headers", "body")
    assert mine.capabilities == Capabilities()
    assert (mine.limits.fresh, mine.limits.spare, mine.unchanged_if_empty) == ("call", 0, True)


def test_what_it_is_granted(tmp_path: Path):
    """Programs that it may start, processes, files; discard."""
    rows = (
        'unchanged_if_empty = false\nenvironment = { LEVEL = "5" }\n[grants]\ndiscard = true\nprocesses = 2\n'
        'exec = ["/bin/true"]\nfiles = ["/etc/passwd"]\n'
    )
    mine = plugin(tmp_path, CAT + rows)
    assert mine.powers == Powers(replace_message=True, discard=True)
    assert mine.capabilities == Capabilities(processes=2, exec=(Path("/bin/true"),))
    assert mine.code == (Path("/bin/cat"), Path("/bin/true"))
    assert (mine.files, mine.environment) == ((Path("/etc/passwd"),), {"LEVEL": "5"})
    assert not mine.unchanged_if_empty


@pytest.mark.parametrize(
    ("entry", "path", "rule", "hint"),
    [
        ('kind = "program"\n', ("argv",), "this key must be set", "argv = ["),
        ('kind = "program"\nargv = ["cat"]\n', ("argv",), "whole path", "/bin/cat?"),
        ('kind = "program"\nargv = ["/nonexistent"]\n', ("argv",), "the program is no file", ""),
        ('kind = "program"\nargv = ["/etc"]\n', ("argv",), "the program is no file", ""),
        ('kind = "program"\nargv = ["/etc/passwd"]\n', ("argv",), "cannot be executed", "chmod +x"),
        (CAT + '[grants]\nexec = ["/etc/passwd"]\n', ("grants", "exec"), "cannot be executed", "chmod +x"),
        (CAT + '[grants]\nfiles = ["/nonexistent"]\n', ("grants", "files"), "no such file", ""),
        (CAT + 'on_failure = "skip"\n', ("on_failure",), "cannot be skipped", "write"),
        (CAT + 'environment = { QMAILUSER = "x" }\n', ("environment", "QMAILUSER"), "sets this one", ""),
        (CAT + 'environment = { TCPREMOTEIP = "x" }\n', ("environment", "TCPREMOTEIP"), "sets this one", ""),
        (CAT + "[limits]\nreuse = 2\n", ("limits", "reuse"), "started anew for each message", "leave it out"),
        (CAT + 'plugin = "mark"\n', ("plugin",), "this key is for plugins of kind", "leave it out"),
        (CAT + 'group = "g"\n', ("group",), "this key is for plugins of kind", "leave it out"),
        (
            'plugin = "mark"\nargv = ["/bin/cat"]\n',
            ("argv",),
            "this key is for plugins of kind",
            "write kind",
        ),
    ],
)
def test_what_cannot_be_is_said_with_what_would_be_right(
    tmp_path: Path, entry: str, path: tuple[str, ...], rule: str, hint: str
):
    """One problem each, at its line."""
    found = problem(tmp_path, entry)
    assert (found.table.strip("[]"), found.key) == ("".join(path[:-1]), path[-1])
    assert rule in found.rule and hint in found.hint, found


def test_its_name_is_that_of_its_file(tmp_path: Path):
    """And must be a name."""
    assert "NN-name.toml" in problem(tmp_path, CAT, "10-No_Name").rule


def test_grants_that_are_of_no_use_are_said(tmp_path: Path):
    """They give nothing; and those of programs give nothing to others."""
    notes = loaded(tmp_path, CAT + "[grants]\nquarantine = true\nstate = true\n").notes
    assert sum("which mine does not want" in note for note in notes) == 2
    mark = 'plugin = "mark"\n[grants]\nedit_headers = ["X-Forkd-Plugin"]\nprocesses = 1\n'
    notes = loaded(tmp_path, mark).notes
    assert any("grants processes, which mark does not want" in note for note in notes)
