"""No terminal obeys what strangers have put into what forkd prints (cli/lines.py)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import forkd.cli
from forkd.cli import commands, sessions
from forkd.cli.failure import CommandFailed
from forkd.cli.lines import say, tell
from forkd.cli.tables import print_facts, print_table

HOSTILE = "x\x1b]0;owned\x07\x1b[2J\x9b2J\r\u202e\nforkd: all is well"
SHOWN = r"x\x1b]0;owned\x07\x1b[2J\x9b2J\r\u202e\nforkd: all is well"

PRINTS = {
    ("lines.py", "click.secho"): "the one way for a line",
    ("tables.py", "click.echo"): "tables: each cell is made safe in state()",
    ("options.py", "click.echo"): "JSON, TOML: made safe in print_document()",
    ("queue_export.py", "sys.stdout"): "mail as it is, asked for by name",
    ("queue_acts.py", "click.confirm"): "a question; its text is made safe there",
    ("user.py", "click.prompt"): "a question without anybody's words",
}
"""Who prints, by what, and why that is well."""

_PRINTING = frozenset(
    {
        "print",
        *(f"click.{name}" for name in ("echo", "secho", "confirm", "prompt", "echo_via_pager", "style")),
    }
)


def printing(tree: ast.Module) -> set[str]:
    """By what a module writes to standard output or standard error."""
    found = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)} & _PRINTING
    found |= {
        f"sys.{node.value.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and ast.unparse(node.value) in ("sys.stdout", "sys.stderr")
        and node.attr not in ("isatty", "flush")
    }
    return found


def test_nothing_prints_past_the_boundary():
    """A new command says what it says by tell(), say(), a table or print_json(); else it is listed here."""
    folder = Path(forkd.cli.__file__).parent
    found = {
        (file.name, by)
        for file in folder.glob("*.py")
        for by in printing(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert found == set(PRINTS)


@pytest.mark.parametrize("show", [tell, say, lambda text: tell(text, error=True)])
def test_a_line_is_one_line_without_controls(capsys, show):
    """Whoever wrote it."""
    show(HOSTILE)
    out, err = capsys.readouterr()
    assert out + err == f"{SHOWN}\n"


def test_cells_are_safe_whatever_they_are(capsys):
    """Also where a cell is no text but holds some."""
    print_table((HOSTILE, "b"), [(HOSTILE, Path(HOSTILE))])
    print_facts([("name", HOSTILE)])
    out = capsys.readouterr().out
    assert set(filter(lambda char: not char.isprintable(), out)) == {"\n"}
    assert "\nforkd:" not in out


def test_a_failure_tells_what_a_process_said_and_no_more(capsys):
    """A zygote's last words come by admin's answer into the message of a command that failed."""
    assert commands._failed(CommandFailed(HOSTILE, hint=HOSTILE), as_json=False) == 1
    err = capsys.readouterr().err
    assert set(filter(lambda char: not char.isprintable(), err)) == {"\n"}
    assert "\nforkd:" not in err


def test_a_worker_out_of_protocol_is_named_safely(capsys):
    """`why` has what it sent."""
    sessions.say_silent([{"worker": 0, "pid": 1, "why": HOSTILE}])
    assert SHOWN in capsys.readouterr().err
