"""The test kit itself: does it see what forkd would refuse?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forkd.sdk import add_header, add_recipient, change_sender, replace_body, testing
from forkd.sdk.plugin import PluginError
from forkd.sdk.testing import (
    Answer,
    LoadedPlugin,
    assert_deferred,
    assert_denied,
    assert_passed,
    in_order,
    load_plugin,
)

MODULE = """
from forkd.sdk import *

def plugin_init(settings):
    def hook(session, *seen):
        session.notes["calls"] = session.notes.get("calls", 0) + 1
        return eval(settings["say"])
    return Plugin(mail=hook, rcpt=hook, message=hook)
"""
MANIFEST = """
name = "sample"
version = "1.0.0"
api = 1
kind = "python"
hooks = ["mail", "rcpt", "message"]
[settings.say]
type = "string"
default = "None"
[wants.powers]
edit_headers = { names = ["X-A*"], reason = "for the test" }
[wants.reads]
envelope = "for the test"
headers = "for the test"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sample.py").write_text(MODULE)
    (tmp_path / "plugin.toml").write_text(MANIFEST)
    return tmp_path


def saying(folder: Path, say: str) -> LoadedPlugin:
    return load_plugin(folder, settings={"say": say})


def test_answers_are_what_the_hook_said(folder: Path):
    """Verdict and edits, as values."""
    assert_denied(
        saying(folder, "deny('5.7.1', 'no')").session().mail("a@b.example"), code=550, enhanced="5.7.1"
    )
    assert_deferred(saying(folder, "defer('4.7.1', 'no')").session().rcpt("a@b.example"), code=451)
    answer = saying(folder, "[add_header('X-A-B', 'c')]").session().message("Subject: x\n\nbody\n")
    assert_passed(answer)
    assert [(e.name, e.value) for e in answer.edits] == [("X-A-B", "c")]


def test_hook_that_the_plugin_has_not_is_no_opinion(folder: Path):
    """As in forkd: it is not called."""
    assert_passed(load_plugin(folder).session().helo("x"))


@pytest.mark.parametrize("say", ["accept()", "discard()", "add_header('X-B', 'c')"])
def test_power_that_the_manifest_does_not_want_fails(folder: Path, say: str):
    """It would be a breach in forkd."""
    with pytest.raises(AssertionError, match=r"plugin\.toml lacks"):
        saying(folder, say).session().message(b"Subject: x\n\n")


def test_edit_at_the_wrong_hook_fails(folder: Path):
    """Edits belong to the message hook."""
    with pytest.raises(AssertionError, match="belongs to the hook message"):
        saying(folder, "add_header('X-A', 'c')").session().mail("a@b")


def test_wrong_return_value_fails(folder: Path):
    """Not None, no verdict, no edits."""
    with pytest.raises(AssertionError, match="a hook returns None"):
        saying(folder, "'no'").session().mail("a@b")


def test_exceptions_of_the_hook_reach_the_test(folder: Path):
    """With their own type."""
    with pytest.raises(ZeroDivisionError):
        saying(folder, "1/0").session().mail("a@b")


def test_session_is_remembered_and_the_envelope_filled(folder: Path):
    """Hooks of a session run in one process; deliver() is a whole transaction."""
    told = "{session.notes['calls']} {session.envelope.sender} {len(session.envelope.recipients)}"
    plugin = saying(folder, f'add_header("X-A", f"{told}") if len(seen) == 2 else None')
    session = plugin.session(client_ip="198.51.100.1")
    edits = session.deliver("Subject: x\n\n", sender="a@b", recipients=["c@d", "e@f"]).edits
    assert edits[0].value == "4 a@b 2"
    edits = session.deliver("Subject: x\n\n", sender="", recipients=["c@d"]).edits
    assert edits[0].value == "7  1"


def test_refused_recipient_is_not_in_the_envelope(folder: Path):
    """deliver() stops at the first refusal."""
    plugin = saying(folder, "deny('5.7.1', 'no') if getattr(seen[0], 'domain', '') == 'x' else None")
    answer = plugin.session().deliver("", sender="a@b", recipients=["c@x"])
    assert answer.hook == "rcpt"
    assert_denied(answer)


@pytest.mark.parametrize(("settings", "says"), [({"sya": 1}, "no setting sya"), ({}, "say has no default")])
def test_settings_are_those_of_the_manifest(folder: Path, settings: dict[str, Any], says: str):
    """A misspelt setting is not silently ignored."""
    (folder / "plugin.toml").write_text(MANIFEST.replace('default = "None"', ""))
    with pytest.raises(PluginError, match=says):
        load_plugin(
            folder, settings=settings or None if says.startswith("say") else {"say": "None", **settings}
        )


def test_unknown_fact(folder: Path):
    """A typing error in a test is no silent pass."""
    with pytest.raises(TypeError, match="client_pi"):
        load_plugin(folder).session(client_pi="192.0.2.1")


EVERYTHING = (
    MANIFEST[: MANIFEST.index("[wants.powers]")].replace(
        'hooks = ["mail", "rcpt", "message"]', 'hooks = ["auth", "mail", "rcpt", "data", "message"]'
    )
    + """
[settings.tags]
type = "strings"
default = ["X-Tag: yes"]
[settings.mode]
type = "string"
default = "all"
[wants.powers]
accept = "for the test"
discard = "for the test"
quarantine = { reason = "for the test", when = { mode = "all" } }
edit_headers = { names = ["X-A*", "Subject"], names_in = ["tags"], reason = "for the test" }
edit_body = "for the test"
add_recipient = { domains = ["b.example"], reason = "for the test" }
delete_recipient = "for the test"
rewrite_recipient = "for the test"
change_sender = "for the test"
export = { names = ["SPFRESULT"], reason = "for the test" }
auth = "for the test"
[wants.reads]
envelope = "for the test"
body = "for the test"
"""
)


@pytest.fixture
def everything(folder: Path) -> Path:
    (folder / "sample.py").write_text(
        MODULE.replace("mail=hook, rcpt", "auth=hook, mail=hook, data=hook, rcpt")
    )
    (folder / "plugin.toml").write_text(EVERYTHING)
    return folder


MAIL = "Subject: x\nX-A: 1\n\nbody\n"
ASKED: list[tuple[str, str, Callable[[Answer], None], Callable[[Answer], None]]] = [
    ("None", "mail", testing.assert_no_opinion, testing.assert_accepted),
    ("accept()", "mail", testing.assert_accepted, testing.assert_no_opinion),
    ("disconnect('4.7.0', 'x')", "mail", testing.assert_disconnected, testing.assert_deferred),
    ("discard()", "rcpt", testing.assert_discarded, testing.assert_denied),
    ("ok()", "auth", testing.assert_authenticated, testing.assert_denied),
    (
        "quarantine('why')",
        "data",
        lambda a: testing.assert_quarantined(a, "why"),
        lambda a: testing.assert_quarantined(a, "other"),
    ),
    (
        "add_header('X-Tag', 'yes')",
        "message",
        lambda a: testing.assert_added_header(a, "x-tag", "yes"),
        lambda a: testing.assert_added_header(a, "X-Tag", "no"),
    ),
    (
        "change_header('Subject', 'y')",
        "message",
        lambda a: testing.assert_changed_header(a, "Subject", "y", n=1),
        lambda a: testing.assert_changed_header(a, "Subject", n=2),
    ),
    (
        "delete_header('X-A')",
        "message",
        lambda a: testing.assert_deleted_header(a, "X-A"),
        lambda a: testing.assert_deleted_header(a, "X-A", n=1),
    ),
    (
        "replace_body('new')",
        "message",
        lambda a: testing.assert_replaced_body(a, "new\n"),
        lambda a: testing.assert_replaced_body(a, "old\n"),
    ),
    (
        "add_recipient('n@b.example')",
        "message",
        lambda a: testing.assert_added_recipient(a, "n@b.example"),
        lambda a: testing.assert_deleted_recipient(a, "n@b.example"),
    ),
    (
        "delete_recipient('c@d')",
        "message",
        lambda a: testing.assert_deleted_recipient(a, "c@d"),
        lambda a: testing.assert_added_recipient(a, "c@d"),
    ),
    (
        "change_sender('')",
        "message",
        lambda a: testing.assert_changed_sender(a, ""),
        lambda a: testing.assert_changed_sender(a, "x@y"),
    ),
    (
        "rewrite('n@b.example')",
        "rcpt",
        lambda a: testing.assert_rewritten(a, "n@b.example"),
        lambda a: testing.assert_rewritten(a, "m@b.example"),
    ),
    (
        "export('SPFRESULT', 'pass')",
        "mail",
        lambda a: testing.assert_exported(a, "SPFRESULT", "pass"),
        lambda a: testing.assert_exported(a, "SPFRESULT", "fail"),
    ),
]


@pytest.mark.parametrize(("say", "hook", "right", "wrong"), ASKED, ids=[say for say, *_ in ASKED])
def test_an_assertion_for_everything_a_hook_can_say(
    everything: Path,
    say: str,
    hook: str,
    right: Callable[[Answer], None],
    wrong: Callable[[Answer], None],
):
    """Each verdict and edit has one, and it tells right from wrong."""
    session = saying(everything, say).session()
    ask: dict[str, Callable[[], Answer]] = {
        "auth": lambda: session.auth("joe", "secret"),
        "mail": lambda: session.mail("a@b"),
        "rcpt": lambda: session.rcpt("c@d"),
        "data": session.data,
        "message": lambda: session.message(MAIL),
    }
    answer = ask[hook]()
    right(answer)
    with pytest.raises(AssertionError, match="expected"):
        wrong(answer)


@pytest.mark.parametrize(
    ("say", "settings", "lacks"),
    [
        ("add_header('X-Tag', 'yes')", {"tags": []}, "edit_headers for X-Tag"),
        ("add_header('X-Other', 'yes')", {}, "edit_headers for X-Other"),
        ("quarantine('why')", {"mode": "none"}, "quarantine"),
        ("add_recipient('n@c.example')", {}, "add_recipient for c.example"),
        ("export('OTHER', 'x')", {}, "export for OTHER"),
    ],
)
def test_wants_depend_on_settings(everything: Path, say: str, settings: dict[str, Any], lacks: str):
    """`names_in` and `when` of the manifest: what the plugin wants with the settings of the test."""
    session = load_plugin(everything, settings={"say": say, **settings}).session()
    with pytest.raises(AssertionError, match=lacks):
        session.message(MAIL)


def test_what_would_be_delivered(everything: Path):
    """Header and body after the edits of the plugins before and of this one."""
    said = (
        "[change_header('X-Tag', seen[1].headers.get('X-Tag') + '!'), "
        "delete_header('X-A'), replace_body('new')]"
    )
    before = [add_header("X-Tag", "yes"), replace_body("older\n"), add_recipient("n@b.example")]
    session = saying(everything, f"{said} if len(seen) == 2 else None").session()
    answer = session.deliver(MAIL, sender="a@b", recipients=["c@d"], edits=before)
    assert answer.delivered is not None
    assert list(answer.delivered.headers.items()) == [("X-Tag", "yes!"), ("Subject", "x")]
    assert answer.delivered.body == b"new\r\n"


def test_edits_of_plugins_before_are_seen(everything: Path):
    """Body and envelope as they left them."""
    told = "{seen[1].body.decode().strip()} {len(seen[0].recipients)} {seen[0].sender}"
    session = saying(everything, f'export("SPFRESULT", f"{told}") if len(seen) == 2 else None').session()
    before = [replace_body("older\n"), add_recipient("n@b.example"), change_sender("x@y")]
    answer = session.deliver(MAIL, sender="a@b", recipients=["c@d"], edits=before)
    testing.assert_exported(answer, "SPFRESULT", "older 2 x@y")


def test_what_a_hook_sets_is_there_at_the_next(everything: Path):
    """An export, a login, a rewritten recipient."""
    say = (
        "ok() if len(seen) == 2 and seen[0] == 'joe' else "
        "rewrite('n@b.example') if hasattr(seen[0], 'parameters') and not hasattr(seen[0], 'size') else "
        "export('SPFRESULT', f'{session.user} {session.exports} {session.envelope.recipients}')"
    )
    session = saying(everything, say).session()
    session.auth("joe", "secret")
    session.mail("a@b")
    session.rcpt("c@d")
    answer = session.data()
    testing.assert_exported(answer, "SPFRESULT", "joe {'SPFRESULT': 'joe {} ()'} (<n@b.example>,)")


GROUPED = pytest.mark.parametrize("grouped", [False, True], ids=["alone", "grouped"])


def lined_up(grouped: bool, *plugins: LoadedPlugin) -> testing.ScriptedSession:
    return (in_order(plugins) if grouped else in_order(*plugins)).session()


def other(everything: Path, say: str, name: str = "other") -> LoadedPlugin:
    """A second plugin, with the same hooks and wants."""
    folder = everything / name
    folder.mkdir()
    (folder / f"{name}.py").write_text((everything / "sample.py").read_text())
    manifest = (everything / "plugin.toml").read_text()
    (folder / "plugin.toml").write_text(manifest.replace('name = "sample"', f'name = "{name}"'))
    return load_plugin(folder, settings={"say": say})


@GROUPED
def test_plugins_in_order_see_the_edits_of_those_before(everything: Path, grouped: bool):
    """Header, body and envelope; what is delivered is the work of all."""
    first = saying(
        everything,
        "[change_header('Subject', 'y'), replace_body('new'), add_recipient('n@b.example')]"
        " if len(seen) == 2 and hasattr(seen[1], 'headers') else None",
    )
    told = "{seen[1].headers.get('Subject')} {seen[1].body.strip()} {len(seen[0].recipients)}"
    second = other(everything, f'add_header("X-Tag", f"{told}") if len(seen) == 2 else None')
    answer = lined_up(grouped, first, second).deliver(MAIL, sender="a@b", recipients=["c@d"])
    testing.assert_changed_header(answer, "Subject", "y")
    testing.assert_added_header(answer, "X-Tag", "y b'new' 2")
    assert answer.delivered is not None
    assert answer.delivered.body == b"new\r\n"
    assert answer.delivered.headers.get("X-Tag") == "y b'new' 2"


@GROUPED
@pytest.mark.parametrize("message", ["Subject: x\n", "Subject: x\nno field\n"])
def test_a_new_body_behind_a_header_without_an_empty_line_brings_one(
    everything: Path, grouped: bool, message: str
):
    """As forkd does: what comes next sees the body, and no part of the header in it."""
    first = saying(everything, "replace_body('new') if len(seen) == 2 else None")
    second = other(
        everything,
        'add_header("X-Tag", f"{seen[1].size} {seen[1].body.strip()}") if len(seen) == 2 else None',
    )
    answer = lined_up(grouped, first, second).deliver(message, sender="a@b", recipients=["c@d"])
    testing.assert_added_header(answer, "X-Tag", "19 b'new'")
    assert answer.delivered is not None
    assert answer.delivered.body == b"new\r\n"
    assert answer.delivered.headers.get("Subject") == "x"


@GROUPED
def test_the_first_verdict_ends_the_hook(everything: Path, grouped: bool):
    """The answer says whose it is; who comes later is not asked."""
    session = lined_up(
        grouped,
        saying(everything, "None"),
        other(everything, "deny('5.7.1', 'no')"),
        other(everything, "1/0", "last"),
    )
    answer = session.mail("a@b")
    assert_denied(answer)
    assert answer.by == "other"
    assert "by other" in repr(answer)


@GROUPED
def test_exports_and_rewritten_recipients_go_on_to_the_next(everything: Path, grouped: bool):
    """At the same hook, and at later ones; what all of them let pass is in the envelope of each."""
    first = saying(
        everything,
        "rewrite('n@b.example') if hasattr(seen[0], 'parameters') and not hasattr(seen[0], 'size') "
        "else export('SPFRESULT', 'pass') if hasattr(seen[0], 'size') else None",
    )
    second = other(
        everything,
        "deny('5.7.1', str(seen[0])) if str(seen[0]) == 'c@d' or session.exports != {'SPFRESULT': 'pass'} "
        "else export('SPFRESULT', str(session.envelope.recipients)) if len(seen) and hasattr(seen[0], "
        "'recipients') else None",
    )
    session = lined_up(grouped, first, second)
    assert_passed(session.mail("a@b"))
    assert_passed(session.rcpt("c@d"))
    testing.assert_exported(session.data(), "SPFRESULT", "(<n@b.example>,)")


def test_a_group_may_what_its_members_may(everything: Path, tmp_path: Path):
    """One sandbox, one set of grants; a plugin by itself has its own only."""
    weak = tmp_path / "weak"
    weak.mkdir()
    (weak / "sample.py").write_text(MODULE)
    (weak / "plugin.toml").write_text(MANIFEST)
    says = saying(weak, "discard()")
    strong = load_plugin(everything)
    assert in_order([strong, says]).session().rcpt("a@b").verdict is not None
    with pytest.raises(AssertionError, match=r"plugin\.toml lacks discard"):
        in_order(strong, says).session().rcpt("a@b")
