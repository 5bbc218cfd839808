"""Learn mode: every refused call is named, with its line and what to do instead, and answered as ever."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import random
from pathlib import Path

import msgspec
import pyseccomp
import pytest

from forkd.config.units import Seconds
from forkd.kit import noted, trial
from forkd.kit.configured import configured
from forkd.kit.samples import Mail, Sample
from forkd.kit.stage import NotStarted
from forkd.sandbox import calls, learn_policy, policy
from forkd.sandbox.learner import LEARN_FD
from forkd.sandbox.profiles import PROFILES
from forkd.sandbox.syscalls import ALLOW, KILL, Action
from tests.kit.conftest import WritePlugin
from tests.support.bpf import verdict
from tests.support.sandboxes import MODES, as_mode

ACTS = (
    # code, the call as it is shown, what it gets, what the advice is about, the grant
    ('open("/etc/passwd")', 'openat("/etc/passwd", O_RDONLY)', "EACCES", "[wants.files]", "files = "),
    ('open("/tmp/x", "w")', 'openat("/tmp/x", O_WRONLY|O_CREAT|O_TRUNC)', "EACCES", "session.state", ""),
    ('os.mkdir("/tmp/x")', 'mkdir("/tmp/x")', "EACCES", "session.state", ""),
    ('os.rename("/tmp/x", "/tmp/y")', 'rename("/tmp/x", "/tmp/y")', "EACCES", "session.state", ""),
    ("socket.socket()", "socket(AF_INET, SOCK_STREAM)", "EACCES", "session.dns", "dns = "),
    ("socket.socket(socket.AF_UNIX)", "socket(AF_UNIX, SOCK_STREAM)", "EACCES", "session.connect", "unix:/"),
    ("os.fork()", "clone(a process)", "EPERM", "no process", ""),
    ("threading.Thread(target=print).start()", "clone(a thread)", "EPERM", "want threads", "threads = "),
    ('os.posix_spawn("/bin/true", ["true"], {})', "clone(a program", "EPERM", "Python library", ""),
    ('os.execv("/bin/true", ["true"])', 'execve("/bin/true")', "EACCES", "Python library", ""),
    ("os.kill(1, 15)", "kill(1, SIGTERM)", "EPERM", "no process can be signalled", ""),
    ("os.dup(1)", "fcntl(1, F_DUPFD_CLOEXEC)", "EPERM", "no new descriptors", ""),
    ("os.close(4)", "close(4)", "EPERM", "forkd's own", ""),
    ("ctypes.CDLL(None).syscall(9999)", "number 9999(", "ENOSYS", "no grant", ""),
)
CODE = """
import ctypes
import os
import socket
import threading

from forkd.sdk import Plugin


def plugin_init(settings):
    def mail(session, sender):
        for act in ACTS:
            try:
                act()
            except (OSError, RuntimeError) as error:
                print(type(error).__name__, error)

    return Plugin(mail=mail)


ACTS = (
"""
FIRST = CODE.count("\n") + 1
PLAIN = Sample(name="plain", mail=(Mail(octets=b"Subject: x\r\n\r\n"),))


def run_trial(folder: Path) -> trial.Tested:
    with configured(folder) as given:
        return asyncio.run(trial.test(given, [PLAIN]))


def of_session(found: trial.Tested) -> list[noted.Noted]:
    return [noted for session in found.sessions for noted in session.refused if not noted.harmless]


@pytest.mark.parametrize("mode", MODES)
def test_each_refused_call_is_named_with_its_line_and_advice(mode: str, write_plugin: WritePlugin):
    """Call, arguments, errno, the line of the plugin; the hook goes on as it would in production."""
    code = CODE + "".join(f"    lambda: {act[0]},\n" for act in ACTS) + ")\n"
    folder = write_plugin(code)

    def body() -> None:
        found = run_trial(folder)
        assert found.failures == 0
        noted = of_session(found)
        for line, (act, text, result, about, grant) in enumerate(ACTS, start=FIRST):
            alike = [one for one in noted if one.refusal.text.startswith(text)]
            assert alike, f"{act}: not among {[one.refusal.text for one in noted]}"
            one = alike[0]
            assert one.refusal.result == result, act
            assert one.where is not None, act
            assert (one.where.file, one.where.line) == (str(folder / "sample.py"), line), act
            assert about in one.advice.instead, act
            assert (grant in one.advice.grant) if grant else not one.advice.grant, act
        assert len(noted) == len(ACTS), [one.refusal.text for one in noted]

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_a_call_that_is_death_is_named_in_the_failure(mode: str, write_plugin: WritePlugin):
    """ptrace ends the sandbox by SIGSYS, as in production."""
    code = (
        "import ctypes\nfrom forkd.sdk import Plugin\n"
        "def mail(session, sender):\n    ctypes.CDLL(None).ptrace(0, 0, 0, 0)\n"
        "def plugin_init(settings):\n    return Plugin(mail=mail)\n"
    )
    folder = write_plugin(code)

    def body() -> None:
        found = run_trial(folder)
        step = found.sessions[0].steps[0]
        assert (step.failure, step.close, found.killed) == ("syscall", True, 1)
        assert step.detail == "refused system call ptrace(PTRACE_TRACEME, 0)"
        one = of_session(found)[-1]
        assert one.where is not None
        assert (one.where.line, one.refusal.result) == (4, "killed")
        assert "never allowed" in one.advice.instead

    as_mode(mode, body)


def test_calls_while_the_plugin_is_loaded_are_told_apart(write_plugin: WritePlugin):
    """The zygote's own: there is no session yet."""
    code = (
        "from forkd.sdk import Plugin\n"
        "def plugin_init(settings):\n"
        "    try:\n        open('/etc/passwd')\n    except PermissionError:\n        pass\n"
        "    return Plugin(mail=lambda session, sender: None)\n"
    )
    found = run_trial(write_plugin(code))
    loading = [noted for noted in found.loading if not noted.harmless]
    assert [(one.refusal.name, one.refusal.loading, one.where and one.where.line) for one in loading] == [
        ("openat", True, 4)
    ]
    assert not of_session(found)


LOADED = (
    "\nfrom forkd.sdk import Plugin\ndef plugin_init(settings):\n    return Plugin(mail=lambda *_: None)\n"
)
DIES = "import ctypes, signal\n\ndef go():\n    ctypes.CDLL(None).ptrace(0, 0, 0, 0)\n"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("go()", 4),
        ("signal.signal(signal.SIGSYS, lambda *_: None)\ngo()", 4),
        ("signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\ngo()", None),
    ],
    ids=["plain", "caught", "blocked"],
)
def test_death_by_a_call_while_the_plugin_is_imported_is_named(
    mode: str, write_plugin: WritePlugin, code: str, line: int | None
):
    """At once, whatever signals it keeps off; who blocks them all gives no stack."""
    folder = write_plugin(DIES + code + LOADED)

    def body() -> None:
        with pytest.raises(NotStarted, match="killed while it was loaded") as caught:
            run_trial(folder)
        (one,) = [one for one in caught.value.refused if not one.harmless]
        assert (one.refusal.text, one.refusal.result) == ("ptrace(PTRACE_TRACEME, 0)", "killed")
        assert one.refusal.loading
        assert one.place == (f"sample.py:{line} in go" if line else "")

    as_mode(mode, body)


def test_an_error_by_a_refused_call_while_the_plugin_is_imported_is_named(write_plugin: WritePlugin):
    """Beside the traceback, with what it had printed."""
    with pytest.raises(NotStarted, match="PermissionError") as caught:
        run_trial(write_plugin("import socket\nprint('so far')\nsocket.socket()\n" + LOADED))
    assert [one.place for one in caught.value.refused if not one.harmless] == ["sample.py:3 in <module>"]
    assert caught.value.printed == "so far"


def test_a_plugin_that_hangs_while_it_is_imported_is_told_where(write_plugin: WritePlugin):
    """After sandbox.start_timeout, by the line it stands at."""
    code = "import socket, select\ntry:\n    socket.socket()\nexcept OSError:\n    select.poll().poll()\n"
    with configured(write_plugin(code + LOADED)) as given:
        sandbox = msgspec.structs.replace(given.config.sandbox, start_timeout=Seconds(2))
        hurried = dataclasses.replace(given, config=msgspec.structs.replace(given.config, sandbox=sandbox))
        with pytest.raises(
            NotStarted, match=r"not loaded in 2s; it is at sample\.py:5 in <module>"
        ) as caught:
            asyncio.run(trial.test(hurried, [PLAIN]))
    assert [one.place for one in caught.value.refused if not one.harmless] == ["sample.py:3 in <module>"]


def test_what_is_printed_while_the_plugin_is_loaded_is_shown(write_plugin: WritePlugin):
    """Before what its sandboxes print."""
    found = run_trial(write_plugin("print('hello')\n" + LOADED.replace("lambda *_: None", "print")))
    assert found.printed[0] == "hello\n"
    assert "".join(found.printed[1:]).startswith("<forkd.sdk.views.Session")


def test_a_plugin_that_leaves_files_open_is_told_so(write_plugin: WritePlugin):
    """The kernel drops the message's descriptor where no number is free for it."""
    code = (
        "from forkd.sdk import Plugin\nKEPT = []\n"
        "def data(session, envelope):\n"
        "    try:\n        while True:\n            KEPT.append(open(__file__))\n"
        "    except OSError:\n        pass\n"
        "def message(session, envelope, message):\n    message.headers.get('Subject')\n"
        "def plugin_init(settings):\n    return Plugin(data=data, message=message)\n"
    )
    more = '[wants.reads]\nheaders = "for the test"\n'
    found = run_trial(write_plugin(code, hooks=("data", "message"), more=more))
    step = found.sessions[0].steps[-1]
    assert (step.hook, step.failure) == ("message", "exception")
    assert "could not be handed over: the plugin has as many files open as it may" in step.detail


def test_a_well_behaved_plugin_has_nothing_refused(write_plugin: WritePlugin):
    """Imports, lazy ones too, are no findings."""
    code = (
        "import email, json, ipaddress\nfrom forkd.sdk import Plugin\n"
        "def mail(session, sender):\n    import textwrap\n    textwrap.fill('x')\n"
        "def plugin_init(settings):\n    return Plugin(mail=mail)\n"
    )
    found = run_trial(write_plugin(code))
    assert found.failures == 0
    assert [noted.refusal.text for noted in found.loading if not noted.harmless] == []
    assert [noted.refusal.text for noted in of_session(found)] == []


def test_a_plugin_that_takes_the_signal_away_is_shown_without_a_stack(write_plugin: WritePlugin):
    """And nothing else changes: the signal is not sent to who would die of it."""
    code = (
        "import os, signal\nfrom forkd.sdk import Plugin\n"
        "def mail(session, sender):\n"
        "    signal.signal(signal.SIGUSR2, signal.SIG_DFL)\n"
        "    try:\n        os.mkdir('/tmp/x')\n    except PermissionError:\n        pass\n"
        "def plugin_init(settings):\n    return Plugin(mail=mail)\n"
    )
    found = run_trial(write_plugin(code))
    assert found.failures == 0
    assert [(one.refusal.name, one.where) for one in of_session(found)] == [("mkdir", None)]


def test_a_thread_of_a_sandbox_is_held_to_the_sandbox_tables(write_plugin: WritePlugin):
    """What only the zygote may is refused to threads too."""
    code = (
        "import os, threading\nfrom forkd.sdk import Plugin\n"
        "def act():\n    try:\n        os.close(4)\n"
        "    except PermissionError as error:\n        print(error)\n"
        "def mail(session, sender):\n"
        "    thread = threading.Thread(target=act)\n    thread.start()\n    thread.join()\n"
        "def plugin_init(settings):\n    return Plugin(mail=mail)\n"
    )
    more = '[wants.capabilities]\nthreads = { count = 2, reason = "for the test" }\n'
    found = run_trial(write_plugin(code, more=more))
    assert found.failures == 0
    assert [(one.refusal.text, one.where and one.where.line) for one in of_session(found)] == [
        ("close(4)", 5)
    ]


# --- the policy is the same ---------------------------------------------------------------------------------

PURE = [name for name in PROFILES if name.startswith("pure") and "own uid" not in name]
ARGUMENTS = (0, 1, 2, 3, 4, 5, 7, 8, 10, 0x11, 0x22, 0x1000, 0x80000, 0x0120_0011, 0x003D_0F00, 1 << 32)
WORDS = {ALLOW: 0x7FFF_0000, KILL: 0x8000_0000}
NOTIFY = 0x7FC0_0000


def word(action: Action) -> int:
    return WORDS[action] if action in WORDS else 0x5_0000 | int(action)


def samples(name: str) -> list[tuple[int, ...]]:
    """Arguments that rows speak of, mixed."""
    mixed = random.Random(name)
    return [tuple(mixed.choice(ARGUMENTS) for _ in range(6)) for _ in range(25)]


@pytest.mark.parametrize("own_uid", [False, True])
@pytest.mark.parametrize("profile", PURE)
@pytest.mark.slow
def test_what_is_decided_is_what_both_filters_would_answer(profile: str, own_uid: bool):
    """The tables in words against the compiled production programs, call by call."""
    compiled = policy.compile_policy(profile=profile)
    load = compiled.load_own_uid if own_uid else compiled.load
    tables = learn_policy.Tables(profile, own_uid=own_uid)
    learning = learn_policy.learning_policy(profile)
    turned = learning.load_own_uid if own_uid else learning.load
    architecture = pyseccomp.system_arch()
    allowed = 0
    for number in range(470):
        name = calls.name_of(number)
        for arguments in samples(name):
            call = {"number": number, "architecture": architecture, "arguments": arguments}
            zygote = verdict(load, **call)
            both = min((verdict(compiled.child, **call), zygote), key=strictness)
            assert word(tables.decide(name, arguments, sandbox=False)) == zygote, (name, arguments)
            assert word(tables.decide(name, arguments, sandbox=True)) == both, (name, arguments)
            asked = verdict(turned, **call)
            assert asked in (WORDS[ALLOW], NOTIFY), (name, arguments)
            if asked == WORDS[ALLOW] and (name, arguments[0]) != ("sendmsg", LEARN_FD):
                allowed += 1
                assert (zygote, both) == (WORDS[ALLOW], WORDS[ALLOW]), (name, arguments)
    assert allowed > 500


def strictness(answer: int) -> int:
    """As the kernel orders them; of two errnos the newer filter's stands first."""
    return 0 if answer == WORDS[KILL] else 2 if answer == WORDS[ALLOW] else 1


def test_numbers_beyond_the_table_wait_for_the_listener():
    """A newer kernel's call is named too, and gets ENOSYS."""
    program = learn_policy.learning_policy().load
    assert verdict(program, number=9999, architecture=pyseccomp.system_arch()) == NOTIFY
    assert (
        learn_policy.Tables("pure", own_uid=False).decide("number 9999", (0,) * 6, sandbox=True)
        == errno.ENOSYS
    )
