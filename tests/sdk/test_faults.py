"""Faults: on paper as forkd answers them, and for real as forkd calls them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkd.hooks.spec import HOOKS, ON_FAILURE, OVERLOADED, failure_reply
from forkd.kit import trial
from forkd.kit.configured import configured
from forkd.kit.samples import Mail, Sample
from forkd.sdk import NotGranted, QuotaExceeded, Unavailable, faults
from forkd.sdk.faults import CAUSES, FAULTS, WRONG_FRAMES, Failing, Faulty
from forkd.sdk.testing import (
    assert_deferred,
    assert_failed,
    assert_no_opinion,
    assert_passed,
    in_order,
    load_plugin,
)

CODE = """
from forkd.sdk import Plugin, add_header, deny
from forkd.sdk import faults

def plugin_init(settings):
    def mail(session, sender):
        pass

    def rcpt(session, recipient):
        if recipient.local.startswith("fault-"):
            faults.commit(recipient.local.removeprefix("fault-"))

    def message(session, envelope, message):
        return deny("5.7.1", "asked")

    def disconnect(session):
        pass

    return Plugin(mail=mail, rcpt=rcpt, message=message, disconnect=disconnect)
"""
MANIFEST = """
name = "sample"
version = "1.0.0"
api = 1
kind = "python"
hooks = ["mail", "rcpt", "message", "disconnect"]
[limits]
timeout = "2s"
cpu = "500ms"
memory = "128MiB"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Of a plugin that fails as the recipient says; where a sandbox may read it."""
    place = Path(tempfile.mkdtemp(prefix="forkd-faults-"))
    place.chmod(0o755)
    (place / "sample.py").write_text(CODE)
    (place / "plugin.toml").write_text(MANIFEST)
    yield place
    shutil.rmtree(place)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("on_failure", ON_FAILURE)
def test_the_client_gets_what_forkd_would_say(hook: str, on_failure: str):
    """Code, enhanced code, text, and whether the connection ends, at each hook."""
    reply = failure_reply(HOOKS[hook], ON_FAILURE[on_failure], "S1")
    said = Failing("crash", at=hook, on_failure=on_failure).verdict(hook)
    if reply is None:
        assert said is None
        return
    assert said is not None
    assert (said.code, said.enhanced) == (reply.code, reply.enhanced)
    assert reply.lines == (f"{said.text} (session S1)",)
    assert (said.do == "disconnect") == reply.close


@pytest.mark.parametrize("hook", HOOKS)
def test_overload_is_said_as_forkd_says_it(hook: str):
    """Whatever on_failure is."""
    reply = failure_reply(HOOKS[hook], OVERLOADED, "S1")
    said = Failing("overload", at=hook, on_failure="deny").verdict(hook)
    assert (None if said is None else (said.code, said.enhanced)) == (
        None if reply is None else (reply.code, reply.enhanced)
    )


def test_a_session_fails_from_a_hook_on(folder: Path):
    """Not before; at later hooks too, since the plugin is not asked again."""
    session = load_plugin(folder).session().with_fault("crash", at="rcpt", on_failure="defer")
    assert_passed(session.mail("joe@client.example"))
    answer = session.rcpt("a@test.local")
    assert_failed(answer, "crash")
    assert_deferred(answer, code=451, enhanced="4.3.0")
    answer = session.message("Subject: x\n\n")
    assert_failed(answer, "failed earlier")
    assert_deferred(answer)


def test_overload_passes(folder: Path):
    """It is nobody's fault, and the next hook is asked."""
    session = load_plugin(folder).session().with_fault("overload", at="rcpt")
    assert_deferred(session.rcpt("a@test.local"), enhanced="4.3.2")
    assert "asked" in str(session.message("Subject: x\n\n"))


def test_skip_lets_it_pass_and_says_so(folder: Path):
    """The next plugin is asked; the failure is seen all the same."""
    order = in_order(load_plugin(folder), load_plugin(folder))
    answer = order.session().with_fault("crash", at="message", on_failure="skip").message("Subject: x\n\n")
    assert_failed(answer, "crash")
    assert "asked" in str(answer.verdict)
    with pytest.raises(AssertionError, match="expected a failure"):
        assert_failed(load_plugin(folder).session().rcpt("a@test.local"))


def test_a_hook_the_plugin_has_not_does_not_fail(folder: Path):
    """Nobody is asked there."""
    assert_no_opinion(load_plugin(folder).session().with_fault("crash", at="helo").helo("x"))


@pytest.mark.parametrize(
    "wrong", [("creash", "mail", "deny"), ("crash", "male", "deny"), ("crash", "mail", "x")]
)
def test_words_that_are_none_are_refused(wrong: tuple[str, str, str]):
    """A typing error must not test nothing."""
    cause, at, on_failure = wrong
    with pytest.raises(ValueError, match="is none of"):
        Failing(cause, at=at, on_failure=on_failure)


def variants() -> list[tuple[str, tuple[str, ...]]]:
    """Every fault, and of those with an argument each kind."""
    more = [(f"wrong_frame:{kind}", ("protocol",)) for kind in WRONG_FRAMES]
    more += [
        (f"kill_at_byte:{count}", ("crash",) if not count else ("protocol",)) for count in (0, 1, 20, 60)
    ]
    more += [("exit:3", ("crash",)), ("allocate:64", ()), ("flood:5", ())]
    return [(name, fault.causes) for name, fault in FAULTS.items()] + more


def test_each_fault_is_called_what_it_says(folder: Path):
    """In a real sandbox, one session each; the control beside them never notices."""
    causes = dict(variants())
    names = [*causes, "none"]
    sessions = [
        Sample(
            name=name, mail=(Mail(recipients=(f'"fault-{name}"@test.local',), octets=b"Subject: x\r\n\r\n"),)
        )
        if name != "none"
        else Sample(name=name, mail=(Mail(octets=b"Subject: x\r\n\r\n"),))
        for name in names
    ]
    with configured(folder) as given:
        found = asyncio.run(trial.test(given, sessions))
    seen = {}
    for session in found.sessions:
        step = next(step for step in session.steps if step.hook == "rcpt")
        seen[session.sample.name] = step.failure
    wrong = {
        name: (cause, causes.get(name))
        for name, cause in seen.items()
        if (cause not in causes.get(name, ()) if causes.get(name) else cause != "")
    }
    assert not wrong
    assert set(seen) == set(names)


CAPABLE = """
from forkd.sdk import CapabilityError, NotGranted, Plugin, defer

def plugin_init(settings):
    def mail(session, sender):
        try:
            {call}
        except (CapabilityError, NotGranted) as why:
            return defer("4.3.0", f"{{type(why).__name__}}: {{why}}")

    return Plugin(mail=mail)
"""


@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("dns", 'session.dns.a("zen.example")'),
        ("state", 'session.state.incr("n")'),
        ("targets", 'session.connect("clamd")'),
    ],
)
@pytest.mark.parametrize(
    "error", [Unavailable("away"), QuotaExceeded("too much"), NotGranted("no")], ids=repr
)
def test_a_faulty_capability_raises_what_it_was_given(tmp_path: Path, what: str, call: str, error: Exception):
    """Where the plugin asks, and nowhere else."""
    (tmp_path / "sample.py").write_text(CAPABLE.format(call=call))
    (tmp_path / "plugin.toml").write_text(
        'name = "sample"\nversion = "1"\napi = 1\nkind = "python"\nhooks = ["mail"]\n'
        "[wants.capabilities]\n"
        'dns = { suffixes = ["example"], reason = "x" }\nstate = "x"\n'
        'connect = { targets = ["clamd"], reason = "x" }\n'
    )
    faulty = Faulty(error)
    answer = load_plugin(tmp_path).session(**{what: faulty}).mail("joe@client.example")
    assert_deferred(answer)
    assert f"{type(error).__name__}: {error}" in str(answer.verdict)
    assert len(faulty.calls) == 1


def test_every_cause_is_one_that_forkd_knows():
    """The table of faults, and the list for tests."""
    assert {cause for fault in FAULTS.values() for cause in fault.causes} <= set(CAUSES)
    with pytest.raises(KeyError):
        faults.commit("no_such_fault")
