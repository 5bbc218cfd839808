"""Transports of kind "pipe": what cannot work, or would harm, is refused at start."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkd.config.schema import Pipe
from tests.support.config_files import loaded, problem

PIPE = '[transport.way]\nkind = "pipe"\n'
DOMAIN = '[domain."example.org"]\ntransport = "way"\n'
CAT = PIPE + 'argv = ["/bin/cat"]\n'


def test_a_program_is_all_that_must_be_said(tmp_path: Path):
    """What it gets else stands in the schema; a field within a word; $ and braces alone mean themselves."""
    text = PIPE + 'argv = ["/bin/cat", "-d${user}@${domain}", "$user", "{x}", "--"]\n' + DOMAIN
    table = loaded(tmp_path, text).config.transport["way"]
    assert isinstance(table, Pipe)
    assert table.argv == ("/bin/cat", "-d${user}@${domain}", "$user", "{x}", "--")
    assert (table.per, table.return_path, table.delivered_to, table.from_line) == (
        "recipient",
        True,
        True,
        False,
    )
    assert (float(table.timeout), table.connections, table.write, table.processes) == (300, 4, (), 0)


@pytest.mark.parametrize(
    ("text", "key", "rule", "hint"),
    [
        (PIPE, "argv", "must be set", "/path/of/program"),
        (PIPE + 'argv = ["cat"]\n', "argv", "whole path", ""),
        (PIPE + 'argv = ["/no/such/program"]\n', "argv", "no file", ""),
        (PIPE + 'argv = ["/etc/passwd"]\n', "argv", "cannot be executed", "chmod +x /etc/passwd"),
        (PIPE + 'argv = ["/bin/cat", "a\\u0000b"]\n', "argv", "NUL", ""),
        (
            PIPE + 'argv = ["/bin/cat", "${extension}"]\n',
            "argv",
            "nothing is called ${extension}",
            "${detail}",
        ),
        (PIPE + 'argv = ["/bin/cat", "${recipent}"]\n', "argv", "nothing is called ${recipent}", "recipient"),
        (PIPE + 'argv = ["/bin/cat", "x${user"]\n', "argv", "has no }", ""),
        (PIPE + 'argv = ["/bin/sh", "-c", "x ${user}"]\n', "argv", "shell would read", '"$1'),
        (PIPE + 'argv = ["/bin/bash", "-ec", "x ${user}"]\n', "argv", "shell would read", '"$1'),
        (PIPE + 'argv = ["/bin/sh", "-ce", "x ${user}"]\n', "argv", "shell would read", '"$1'),
        (
            PIPE + 'argv = ["/usr/bin/env", "A=b", "sh", "-c", "x ${user}"]\n',
            "argv",
            "shell would read",
            '"$1',
        ),
        (PIPE + 'argv = ["/usr/bin/perl", "-we", "x \'${user}\'"]\n', "argv", "shell would read", ""),
        (CAT + 'per = "message"\ndelivered_to = true\n', "delivered_to", "no one recipient", "leave it out"),
        (CAT + 'environment = { SENDER = "x" }\n', "SENDER", "sets this one itself", ""),
        (CAT + 'environment = { "A B" = "x" }\n', '"A B"', "a variable's name", ""),
        (CAT + 'files = ["/no/such"]\n', "files", "no such file", ""),
        (CAT + 'exec = ["/etc/passwd"]\n', "exec", "cannot be executed", ""),
        (CAT + 'write = ["/no/such"]\n', "write", "no such folder", "mkdir /no/such"),
        (CAT + 'write = ["/"]\n', "write", "own files", "another"),
        (CAT + 'write = ["{data}"]\n', "write", "own files", "another"),
        (CAT + 'write = ["{data}/spool/w0"]\n', "write", "own files", "another"),
        (CAT + 'write = ["{data}/state"]\n', "write", "own files", "another"),
        (CAT + "uid = 1900000001\n", "uid", "gives out", ""),
        (CAT.replace("way", '"a/b"'), '"a/b"', "letters, digits", ""),
        (CAT + 'timeout = "0s"\n', "timeout", "1s", ""),
    ],
    ids=[
        *("nothing", "relative", "missing", "not executable", "NUL", "Postfix name", "typo", "open brace"),
        *(
            "shell",
            "shell with options",
            "c before e",
            "env",
            "perl",
            "Delivered-To of all",
            "own variable",
            "no variable",
            "no file",
        ),
        *("exec", "no folder", "root", "data_dir", "spool", "state", "uid of plugins", "name"),
        "timeout",
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, text: str, key: str, rule: str, hint: str):
    """With what would be right, as far as that is known."""
    (tmp_path / "var/spool/w0").mkdir(parents=True)
    (tmp_path / "var/state").mkdir()
    found = problem(tmp_path, text.replace("{data}", str(tmp_path / "var")) + DOMAIN.replace("way", "local"))
    assert found.key == key
    assert rule in found.rule
    assert hint in found.hint


def test_a_shell_gets_addresses_as_arguments(tmp_path: Path):
    """The form that the hint shows is taken; and so is a script that a shell reads."""
    for argv in (
        '["/bin/sh", "-c", "x \\"$1\\"", "sh", "${user}"]',
        '["/bin/sh", "/opt/x", "${user}"]',
        '["/usr/bin/perl", "-w", "/opt/x", "-e", "${user}"]',
    ):
        assert loaded(tmp_path, f"{PIPE}argv = {argv}\n{DOMAIN}").config.transport["way"]


def test_a_program_is_not_its_own_to_change(tmp_path: Path):
    """A folder that it may write holds neither it nor what it may start, by whatever name."""
    folder = tmp_path / "opt"
    folder.mkdir()
    (folder / "program").write_text("#!/bin/sh\n")
    (folder / "program").chmod(0o755)
    (tmp_path / "link").symlink_to(folder)
    for argv, also in (("link/program", ""), ("/bin/cat", f'exec = ["{folder}/program"]\n')):
        text = f'{PIPE}argv = ["{tmp_path / argv}"]\n{also}write = ["{folder}"]\n{DOMAIN}'
        found = problem(tmp_path, text)
        assert (found.key, "lies in there" in found.rule) == ("write", True)


def test_what_does_nothing_is_said(tmp_path: Path):
    """A size of files that it may not write."""
    found = loaded(tmp_path, CAT + 'file_size = "1MiB"\n' + DOMAIN)
    assert any("way.file_size is not used" in note for note in found.notes)


def test_clients_do_not_wait_for_a_program(tmp_path: Path):
    """accept = "proxy" is for next hops."""
    found = problem(tmp_path, CAT + DOMAIN + '[listener.mx]\naccept = "proxy"\n')
    assert (found.key, "gives none" in found.rule) == ("transport", True)
