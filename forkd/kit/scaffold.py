"""What does a new plugin's folder look like? Files from template/, with a piece for each hook."""

from __future__ import annotations

import dataclasses
import keyword
import re
import string
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from forkd.config.schema import HOOKS

_TEMPLATES: Final = Path(__file__).parent / "template"
_WIDTH: Final = 88
"""Of a line: the least that formatters are told."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


class BadName(ValueError):  # noqa: N818 - a state of what was given
    """No plugin can be made of this; the text is for the author."""


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """One hook, in all files.

    code   its function in plugin_init.
    does   what it does, for the manual.
    test   its tests.
    wants  lines of plugin.toml; grants: what an admin writes for them.
    names  what it imports from the SDK; checks: from its test kit.
    """

    code: str
    does: str
    test: str
    wants: str = ""
    grants: str = ""
    names: tuple[str, ...] = ("deny",)
    checks: tuple[str, ...] = ("assert_denied", "assert_passed")


def _refusing(hook: str, argument: str, subject: str, words: str, calls: tuple[str, str]) -> Piece:
    """A hook that refuses what is listed."""
    arguments = f"session, {argument}" if argument else "session"
    listed, other = calls
    return Piece(
        code=f'''    def {hook}({arguments}):
        if {subject} in listed:
            session.log(f"{{session.client_ip}}: {{{subject}}} is listed")
            return deny("5.7.1", "{words} is not taken here")
        return None
''',
        does=f"{words[:1].upper()}{words[1:]} that is listed gets 550 5.7.1.",
        test=f"""

def test_{hook}_of_somebody_listed_is_refused():
    assert_denied({listed}, enhanced="5.7.1")


def test_{hook}_of_anybody_else_goes_on():
    assert_passed({other})
""",
    )


PIECES: Final[dict[str, Piece]] = {
    "connect": _refusing(
        "connect",
        "",
        "session.client_name",
        "this client",
        ('session(client_name="listed.example").connect()', "session().connect()"),
    ),
    "helo": _refusing(
        "helo",
        "name",
        "name.lower()",
        "this name",
        ('session().helo("listed.example")', 'session().helo("client.example")'),
    ),
    "auth": Piece(
        code="""    def auth(session, user, secret):
        if user.rpartition("@")[2] in listed or not secret:
            session.log(f"{session.client_ip}: {user} is refused")
            return deny("5.7.8", "not here")
        return None
""",
        does="A user whose domain is listed cannot log in.",
        test="""

def test_auth_of_a_listed_user_is_refused():
    assert_denied(session().auth("joe@listed.example", "secret"), enhanced="5.7.8")


def test_auth_of_anybody_else_is_decided_by_others():
    assert_passed(session().auth("joe@client.example", "secret"))
""",
        wants='\n[wants.powers]\nauth = "refuses users of listed domains"\n',
        grants="auth = true",
    ),
    "mail": _refusing(
        "mail",
        "sender",
        "sender.domain",
        "mail from this domain",
        ('session().mail("joe@listed.example")', 'session().mail("joe@client.example")'),
    ),
    "rcpt": _refusing(
        "rcpt",
        "recipient",
        "recipient.domain",
        "mail to this domain",
        ('session().rcpt("joe@listed.example")', 'session().rcpt("joe@test.local")'),
    ),
    "data": Piece(
        code="""    def data(session, envelope):
        if session.client_name in listed and len(envelope.recipients) > 1:
            session.log(f"{session.client_ip}: {len(envelope.recipients)} recipients")
            return deny("5.5.3", "one recipient at a time")
        return None
""",
        does="A listed client's mail to more than one recipient gets 550 5.5.3.",
        test="""

def data(client, *recipients):
    client.mail("joe@client.example")
    for recipient in recipients:
        client.rcpt(recipient)
    return client.data()


def test_data_of_a_listed_client_for_two_is_refused():
    client = session(client_name="listed.example")
    assert_denied(data(client, "a@test.local", "b@test.local"), enhanced="5.5.3")


def test_data_of_anybody_else_goes_on():
    assert_passed(data(session(), "a@test.local", "b@test.local"))
""",
        wants='\n[wants.reads]\nenvelope = "counts the recipients"\n',
        grants='reads = ["envelope"]',
    ),
    "message": Piece(
        code="""    def message(session, envelope, message):
        subject = (message.headers.get("Subject") or "").lower()
        if any(entry in subject for entry in listed):
            session.log(f"{session.client_ip}, {envelope.sender}: {subject}")
            return deny("5.7.1", "this subject is not taken here")
        return None
""",
        does="A mail whose subject has something listed in it gets 550 5.7.1.",
        test="""

def test_message_with_a_listed_word_is_refused():
    answer = session().message("Subject: buy at listed.example\\n\\nnow\\n")
    assert_denied(answer, enhanced="5.7.1")


def test_message_about_anything_else_goes_on():
    assert_passed(session().message("Subject: hello\\n\\nJoe\\n"))
""",
        wants='\n[wants.reads]\nenvelope = "names the sender in the log"\nheaders = "looks at Subject"\n',
        grants='reads = ["envelope", "headers"]',
    ),
    "disconnect": Piece(
        code="""    def disconnect(session):
        session.log(f"{session.client_ip} is gone; {len(listed)} entries are listed")
""",
        does="When a session is over it says so in the log.",
        test="""

def test_disconnect_has_no_opinion():
    assert_no_opinion(session().disconnect())
""",
        names=(),
        checks=("assert_no_opinion",),
    ),
}
"""Hook -> its piece, in a session's order."""


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """A new plugin: its files, and the lines that switch it on."""

    folder: Path
    files: tuple[Path, ...]
    entry: str


def make(name: str, hooks: Sequence[str], parent: Path, *, python: Path | None = None) -> Made:
    """Write a new plugin's folder below `parent`; `python`: its own interpreter.

    Raises BadName, OSError (FileExistsError: it is there).
    """
    check_name(name)
    chosen = [hook for hook in HOOKS if hook in (hooks or ("mail",))]
    if chosen == ["disconnect"]:
        raise BadName(
            "disconnect goes to plugins that were asked before in the session: choose another hook too"
        )
    folder = (parent / name).absolute()
    entry = _entry(folder, chosen, python)
    files = _files(name, chosen, folder, entry)
    folder.mkdir()
    (folder / "tests").mkdir()
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return Made(folder, tuple(files), entry)


def check_name(name: str) -> None:
    """Raise BadName for what cannot be a plugin and a module at once."""
    if not _NAME.fullmatch(name):
        raise BadName(f"{name!r}: a name is a small letter, then small letters, digits and _; 32 at most")
    if keyword.iskeyword(name) or name in sys.stdlib_module_names or name in ("forkd", "tests"):
        raise BadName(f"{name!r}: a module of Python has this name, and the plugin would be taken for it")


def _files(name: str, hooks: Sequence[str], folder: Path, entry: str) -> dict[Path, str]:
    pieces = [PIECES[hook] for hook in hooks]
    checks = sorted({check for piece in pieces for check in piece.checks} | {"load_plugin"})
    names = sorted({name for piece in pieces for name in piece.names}, key=str.lower)
    grants = _grants(hooks)
    values = {
        "name": name,
        "folder": str(folder),
        "shown": str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder),
        "entry": entry,
        "does": _wrapped(f"Asked at {', '.join(hooks)}.", *(piece.does for piece in pieces)),
    }
    module = values | {
        "hooks": ", ".join(hooks),
        "imports": _import("forkd.sdk", ["Plugin", *names]),
        "grants": "".join(f"        {line}\n" for line in ("", "[grants]", *grants)).replace(
            " " * 8 + "\n", "\n"
        )
        if grants
        else "",
        "functions": "\n".join(piece.code for piece in pieces).rstrip("\n") + "\n",
        "table": _call([f"{hook}={hook}" for hook in hooks]),
    }
    manifest = values | {
        "hooks": ", ".join(f'"{hook}"' for hook in hooks),
        "wants": _wants(pieces),
    }
    tests = values | {
        "imports": _import("forkd.sdk.testing", checks),
        "tests": "".join(piece.test for piece in pieces).rstrip("\n"),
    }
    return {
        folder / f"{name}.py": _filled("module", module),
        folder / "plugin.toml": _filled("manifest", manifest),
        folder / "tests" / f"test_{name}.py": _filled("tests", tests),
        folder / "README.md": _filled("readme", values),
    }


def _filled(template: str, values: dict[str, str]) -> str:
    text = (_TEMPLATES / f"{template}.in").read_text(encoding="utf-8")
    return string.Template(text).substitute(values).rstrip("\n") + "\n"


def _wrapped(*sentences: str) -> str:
    return textwrap.fill(" ".join(sentences), _WIDTH - 4).replace("\n", "\n    ")


def _import(module: str, names: Sequence[str]) -> str:
    """On one line where formatters leave it there, whichever width of the usual ones they have."""
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in names), ")"])


def _call(arguments: Sequence[str]) -> str:
    line = f"    return Plugin({', '.join(arguments)})"
    if len(line) <= _WIDTH:
        return line
    return "\n".join(["    return Plugin(", *(f"        {one}," for one in arguments), "    )"])


def _wants(pieces: Sequence[Piece]) -> str:
    """The tables of all pieces, each table once."""
    tables: dict[str, dict[str, str]] = {}
    for piece in pieces:
        table: dict[str, str] = {}
        for line in piece.wants.split("\n"):
            if line.startswith("["):
                table = tables.setdefault(line, {})
            elif line:
                key, _, value = line.partition(" = ")
                table.setdefault(key, value)
    return "".join(
        f"\n{name}\n" + "".join(f"{key} = {value}\n" for key, value in rows.items())
        for name, rows in tables.items()
    )


def _grants(hooks: Sequence[str]) -> list[str]:
    lines = [PIECES[hook].grants for hook in hooks if PIECES[hook].grants]
    if 'reads = ["envelope", "headers"]' in lines and 'reads = ["envelope"]' in lines:
        lines.remove('reads = ["envelope"]')
    return lines


def _entry(folder: Path, hooks: Sequence[str], python: Path | None) -> str:
    grants = _grants(hooks)
    lines = [f'plugin = "{folder}"']
    if python is not None:
        lines.append(f'python = "{python.absolute()}"')
    lines += ["", "[settings]", 'listed = ["listed.example"]']
    if grants:
        lines += ["", "[grants]", *grants]
    return "\n".join(lines) + "\n"
