"""forkd/sandbox/program_*.py: one message, one run of a program; whatever the program is like."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import select
import shutil
import signal
import tempfile
import types
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st_

from forkd.config.schema import Powers
from forkd.hooks.checks import check_answer
from forkd.hooks.spec import HOOKS
from forkd.rpc.calls import Answer, CallFailed, Overloaded, Verdict
from forkd.sandbox import program_exits
from forkd.sandbox.host import Filter, Sandbox
from forkd.sandbox.program_exits import LATER, REFUSE
from forkd.sandbox.program_output import Output
from forkd.sandbox.program_runs import Runs
from forkd.smtp.address import Mailbox
from forkd.worker.copies import CopyBudget
from tests.support import filters, programs
from tests.support.sandboxes import MODES, Stage, as_mode, stage
from tests.support.waiting import wait_for

MAIL = b"Subject: hello\n\nbody\n"
PLAIN = MODES[-1:]
ROOT_TOO = [*PLAIN, *(pytest.param(mode, marks=pytest.mark.slow) for mode in MODES[:-1])]
"""Nearly all as an ordinary user, who has fewer walls; what the walls are about as root too."""


def in_stage(mode: str, act: Callable[[Stage], None]) -> None:
    def body() -> None:
        with stage(mode) as st:
            act(st)

    as_mode(mode, body)


COPY = r"""
#include <unistd.h>
int main(void) { char b[65536]; long n; while ((n = read(0, b, sizeof b)) > 0) write(1, b, n); return n < 0; }
"""
WRITES_FIRST = r"""
#include <string.h>
#include <unistd.h>
int main(void) {
    char b[65536]; long n; memset(b, 'x', sizeof b); b[sizeof b - 1] = '\n';
    for (int i = 0; i < 64; i++) write(1, b, sizeof b);
    while ((n = read(0, b, sizeof b)) > 0) write(1, b, n);
    return 0;
}
"""
FLOOD = r"""
#include <string.h>
#include <unistd.h>
int main(void) {
    static char b[1 << 20]; memset(b, 'x', sizeof b);
    for (int i = 0; i < 1024; i++) for (unsigned at = 0; at < sizeof b; ) {
        long n = write(1, b + at, sizeof b - at); if (n < 0) return 0; at += n;
    }
    return 0;
}
"""

FORKS = r"""
#include <stdio.h>
#include <unistd.h>
int main(void) { printf("%d\n", (int)fork()); return 0; }
"""


@pytest.mark.parametrize("mode", ROOT_TOO)
def test_cat_is_a_valid_filter(mode: str):
    """plugins.md: what comes out as it went in is no edit, and costs no memory."""

    def act(st: Stage) -> None:
        filters.start(st, "/bin/cat")
        said = filters.once(st, MAIL * 10_000, unchanged_if_empty=False)
        assert (said.answer.edits, said.answer.verdict, said.message) == ((), None, None)
        assert [report.status for report in st.reports] == ["exit 0"]  # one process, one exec

    in_stage(mode, act)


@pytest.mark.parametrize("mode", ROOT_TOO)
@pytest.mark.parametrize("language", ["shell", "perl", pytest.param("python", marks=pytest.mark.slow), "C"])
def test_filters_in_several_languages(mode: str, language: str):
    """Interpreter, loader and modules are found; what they write is the message."""
    scripts = {
        "shell": ("/bin/sh", "echo X-Seen: yes\nwhile IFS= read -r line; do printf '%s\\n' \"$line\"; done"),
        "perl": ("/usr/bin/perl", 'use strict; print "X-Seen: yes\\n"; print while <STDIN>;'),
        "python": (
            "/usr/bin/env python3",
            "import sys, email, re\nsys.stdout.write('X-Seen: yes\\n' + sys.stdin.read())",
        ),
    }

    def act(st: Stage) -> None:
        if language == "C":
            filters.start(
                st, programs.binary(st, COPY.replace("char b", 'write(1, "X-Seen: yes\\n", 12); char b'))
            )
        else:
            interpreter, text = scripts[language]
            if shutil.which(interpreter.split()[-1], path="/usr/bin:/bin") is None:
                pytest.skip(f"lack of the machine: {interpreter} is not installed")
            filters.start(st, filters.script(st, text, interpreter=interpreter))
        assert filters.once(st, MAIL).message == b"X-Seen: yes\n" + MAIL

    in_stage(mode, act)


def test_its_environment_is_what_filters_of_indimail_know():
    """plugins.md, "Programs": these, the client's, the admin's; nothing else of ours. It starts in /."""

    def act(st: Stage) -> None:
        filters.start(st, "/usr/bin/env")
        edit = b'{"op":"delete_recipient","address":"carol@test.local"}'
        said = filters.once(
            st,
            MAIL,
            asked={
                "sender": Mailbox('a "b', "example.org"),
                "recipients": [Mailbox(name, "test.local") for name in ("bob", "carol", "dave")],
                "edits": [edit],
            },
            environment={"GREETING": "hello world", "LC_ALL": "C"},
        )
        assert said.message is not None
        assert b"\nQMAILRCPTS=bob@test.local\ndave@test.local\n\n" in said.message
        envelope = b'Fa "b@example.org\0Tbob@test.local\0Tdave@test.local\0\0'
        assert set(said.message.decode().split("\n")) == {
            "PATH=/usr/local/bin:/usr/bin:/bin",
            "LC_ALL=C",
            "GREETING=hello world",
            'QMAILUSER=a "b',
            "QMAILHOST=example.org",
            "QMAILRCPTS=bob@test.local",
            "dave@test.local",
            "",
            "NUMRCPTS=2",
            f"MSGSIZE={len(MAIL)}",
            f"ENVSIZE={len(envelope)}",
            "TCPREMOTEIP=192.0.2.1",
            "TCPREMOTEPORT=4711",
            "TCPREMOTEHOST=client.example",
            "TCPLOCALIP=192.0.2.25",
            "TCPLOCALPORT=25",
            "TCPLOCALHOST=mx.example",
        }

    in_stage(PLAIN[0], act)


def test_many_recipients_fit_and_too_many_are_overload():
    """1,000 of usual length go; those that the kernel takes in no variable are put off, not kept from it."""

    def act(st: Stage) -> None:
        filters.start(st, filters.script(st, 'echo "$NUMRCPTS ${#QMAILRCPTS}"'))
        some = [Mailbox(f"recipient{n:04}", "department.example.org") for n in range(1000)]
        said = filters.once(st, asked={"recipients": some, "sender": None})
        assert said.message == f"1000 {1000 * 37}\n".encode()
        many = [Mailbox("x" * 64, f"{'y' * 63}.example.org") for _ in range(1000)]
        with pytest.raises(Overloaded):
            filters.once(st, asked={"recipients": many})

    in_stage(PLAIN[0], act)


EVAL = 'eval "$QMAILUSER"'
"""A filter that does what the sender's local part says: one zygote for a table of endings."""


def endings(acts: Callable[[Stage, Callable[[str], Awaitable[filters.Said]]], Awaitable[None]]) -> None:
    """Ask EVAL for one thing after the other."""

    def act(st: Stage) -> None:
        filters.start(st, filters.script(st, EVAL))

        async def scenario(st: Stage) -> None:
            await acts(st, lambda text: filters.ask(st, sender=Mailbox(text, "example.org")))

        filters.host(st, scenario)

    in_stage(PLAIN[0], act)


EXITS = {
    2: ("discard", 0),
    99: ("discard", 0),
    31: ("deny", 554),
    100: ("deny", 554),
    71: ("defer", 451),
    111: ("defer", 451),
}


def test_exit_codes():
    """plugins.md, "Programs"; what it has written until then is not the message."""

    async def acts(_st: Stage, ask: Callable[[str], Awaitable[filters.Said]]) -> None:
        for status, expected in EXITS.items():
            said = await ask(f"echo rubbish; exit {status}")
            assert said.answer.verdict is not None and said.message is None
            assert (said.answer.verdict.do, said.answer.verdict.code) == expected, status

    endings(acts)


REPLIES = {
    "DNo such thing here": Verdict("deny", 554, "5.3.0", "No such thing here"),
    "D5.7.1 spam": Verdict("deny", 554, "5.7.1", "spam"),
    "D5.7.1": Verdict("deny", 554, "5.7.1", REFUSE.text),
    "D(#5.7.1)": Verdict("deny", 554, "5.7.1", REFUSE.text),
    "D5.7.1no code": Verdict("deny", 554, "5.3.0", "5.7.1no code"),
    "Zcome back (#4.7.9)\\n": Verdict("defer", 451, "4.7.9", "come back"),
    "D4.7.1 a class that does not fit": Verdict("deny", 554, "5.3.0", "a class that does not fit"),
    "Dtwo\\r\\nlines\\033\\303\\274": Verdict("deny", 554, "5.3.0", "two lines??"),
    "Done": Verdict("deny", 554, "5.3.0", "one"),
    "": LATER,
    "what?": LATER,
}


def test_a_reply_of_its_own():
    """Exit 88: D permanent, Z temporary; whatever it writes, it is one printable line. It is no log line."""

    async def acts(st: Stage, ask: Callable[[str], Awaitable[filters.Said]]) -> None:
        for text, verdict in REPLIES.items():
            assert (await ask(f"printf '{text}' >&2; exit 88")).answer.verdict == verdict, text
        assert st.outputs == []

    endings(acts)


FAILURES = {
    "exit 1": "exit 1",
    "exit 2": "exit 2",  # and a complaint: a shell's end, no drop
    "if then fi oops": "exit 2",
    "exit 3": "exit 3",
    "exec /nonexistent": "exit 127",
}


def test_every_other_end_is_a_failure():
    """on_failure decides then; what it printed is in the log."""

    async def acts(st: Stage, ask: Callable[[str], Awaitable[filters.Said]]) -> None:
        for ending, detail in FAILURES.items():
            with pytest.raises(CallFailed) as failed:
                await ask(f"echo rubbish; echo oh dear >&2; {ending}")
            assert (failed.value.cause, failed.value.detail.partition(",")[0]) == ("crash", detail)
            assert st.outputs[-1][0].startswith("oh dear\n") or "Syntax error" in st.outputs[-1][0]

    endings(acts)


def test_no_output_at_all():
    """unchanged_if_empty: as qmail-qfilter has it; without, as qmail-multi: an empty message."""

    def act(st: Stage) -> None:
        filters.start(st, "/bin/true")
        for unchanged, message in ((True, None), (False, b"")):
            said = filters.once(st, unchanged_if_empty=unchanged)
            assert (said.answer.verdict, said.message) == (None, message)

    in_stage(PLAIN[0], act)


def test_it_may_write_before_it_reads():
    """4 MiB of its own, then the message: neither waits for the other."""

    def act(st: Stage) -> None:
        filters.start(st, programs.binary(st, WRITES_FIRST))
        said = filters.once(st, MAIL * 50_000)
        assert said.message is not None
        assert len(said.message) == 64 * 65_536 + len(MAIL) * 50_000
        assert said.message.endswith(b"x\n" + MAIL * 50_000)

    in_stage(PLAIN[0], act)


@pytest.mark.parametrize("text", ["echo short", pytest.param("exec head -c 10", marks=pytest.mark.slow)])
def test_it_need_not_read_all_or_anything(text: str):
    """A large message, and a program that has said all it has to: nobody is stopped in the middle."""

    def act(st: Stage) -> None:
        filters.start(st, filters.script(st, text), execute=("/usr/bin/head",), processes=1)
        said = filters.once(st, MAIL * 500_000)
        assert said.message == (b"short\n" if text.startswith("echo") else (MAIL * 2)[:10])

    in_stage(PLAIN[0], act)


@pytest.mark.parametrize("mode", ROOT_TOO)
def test_a_gigabyte_of_output_is_cut_off_at_the_limit(mode: str):
    """Past limits.message_size it is killed, and has failed: what it wrote until then is nobody's mail."""

    def act(st: Stage) -> None:
        filters.start(st, programs.binary(st, FLOOD))
        with pytest.raises(CallFailed) as failed:
            filters.once(st, message_size=3 << 20)
        assert failed.value.cause == "protocol"
        assert failed.value.detail == f"it writes more than {3 << 20} octets"

    in_stage(mode, act)


def test_output_is_octets():
    """Whatever they are; what is fit for a message, who keeps it decides (tests/programs/test_daemon.py)."""

    def act(st: Stage) -> None:
        filters.start(st, filters.script(st, "printf '\\000\\377\\r\\n'"))
        assert filters.once(st).message == b"\0\xff\r\n"

    in_stage(PLAIN[0], act)


@pytest.mark.parametrize("mode", ROOT_TOO)
def test_what_it_leaves_behind_is_killed_and_not_waited_for(mode: str):
    """A child that holds its output open: the message is what its first process wrote."""

    def act(st: Stage) -> None:
        text = "(trap '' TERM HUP; sleep 100) &\n(while :; do :; done) &\necho done\nexit 0"
        filters.start(st, filters.script(st, text), execute=("/bin/sleep",), processes=4)

        async def scenario(st: Stage) -> None:
            sandbox = await st.host.take(filters.NAME, "s1")
            kept = types.SimpleNamespace(call=sandbox.call, release=lambda: None)
            assert (await filters.ask(st, sandbox=kept)).message == b"done\n"
            assert wait_for(lambda: not st.processes(), timeout_s=1)  # before it is let go
            sandbox.release()

        filters.host(st, scenario)

    in_stage(mode, act)


def test_a_pipeline():
    """processes and exec are granted: what a shell is for."""

    def act(st: Stage) -> None:
        filters.start(
            st, filters.script(st, "cat | tr a-z A-Z | cat"), execute=("/bin/cat", "/usr/bin/tr"), processes=3
        )
        assert filters.once(st).message == MAIL.upper()

    in_stage(PLAIN[0], act)


@pytest.mark.parametrize("mode", ROOT_TOO)
def test_it_starts_nothing_that_was_not_granted(mode: str):
    """Its own file and interpreter, and no more: neither another program nor a second process."""

    def act(st: Stage) -> None:
        text = "/bin/cat </dev/null 2>/dev/null && echo ran\n(exec 2>/dev/null; true) && echo forked\necho $?"
        filters.start(st, filters.script(st, text), execute=(), processes=2)
        said = filters.once(st)
        assert said.message == b"forked\n0\n"

    in_stage(mode, act)


def test_without_processes_it_cannot_fork():
    """processes = 0, the default."""

    def act(st: Stage) -> None:
        filters.start(st, programs.binary(st, FORKS))
        assert filters.once(st).message == b"-1\n"

    in_stage(PLAIN[0], act)


SLEEPS = ("exec sleep 100", "cat >/dev/null; exec sleep 100")


@pytest.mark.parametrize(
    "text", ["while :; do :; done", *(pytest.param(text, marks=pytest.mark.slow) for text in SLEEPS)]
)
def test_the_deadline_kills_it(text: str):
    """One that neither reads nor writes, too; the next message finds it as ever."""

    def act(st: Stage) -> None:
        filters.start(
            st,
            filters.script(st, f'[ "$QMAILUSER" = alice ] || exit 99\n{text}'),
            execute=("/bin/sleep", "/bin/cat"),
            processes=1,
        )

        async def scenario(st: Stage) -> None:
            with pytest.raises(CallFailed) as failed:
                await filters.ask(st, timeout_s=0.3)
            assert (failed.value.cause, failed.value.detail) == ("deadline", "no end within 0.3 s")
            assert wait_for(lambda: not st.processes(), timeout_s=1)
            said = await filters.ask(st, sender=Mailbox("other", "example.org"))
            assert said.answer.verdict == Verdict("discard")
            assert len(st.host.readers) == 1  # of the zygote's connection: no pipe of a run is listened to

        filters.host(st, scenario)

    in_stage(PLAIN[0], act)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_processor_time_is_bounded(mode: str):
    """limits.cpu, in whole seconds: the exec drops the finer timer."""

    def act(st: Stage) -> None:
        filters.start(st, filters.script(st, "while :; do :; done"), cpu_s=0.1)
        with pytest.raises(CallFailed) as failed:
            filters.once(st, cpu_s=0.1)
        assert failed.value.cause == "cpu"

    in_stage(mode, act)


def test_a_cancelled_call_kills_it():
    """The client went away."""

    def act(st: Stage) -> None:
        filters.start(st, filters.script(st, "while :; do :; done"))

        async def scenario(st: Stage) -> None:
            going = asyncio.ensure_future(filters.ask(st))
            while not st.processes():
                await asyncio.sleep(0.005)
            going.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going
            assert wait_for(lambda: not st.processes(), timeout_s=1)

        filters.host(st, scenario)

    in_stage(PLAIN[0], act)


def test_who_holds_it_may_close_it_in_the_middle_of_the_call():
    """The session ended: the call has failed, and the program is killed. Once more is no error."""

    def act(st: Stage) -> None:
        filters.start(st, filters.script(st, "echo some; while :; do :; done"))

        async def scenario(st: Stage) -> None:
            sandbox = await st.host.take(filters.NAME, "s1")
            going = asyncio.ensure_future(filters.ask(st, sandbox=sandbox))
            while not st.processes():
                await asyncio.sleep(0.005)
            sandbox.close()
            with pytest.raises(CallFailed) as failed:
                await going
            assert failed.value.cause == "unavailable"
            assert wait_for(lambda: not st.processes(), timeout_s=1)
            sandbox.close()
            assert st.host.alive(filters.NAME) == 0

        filters.host(st, scenario)

    in_stage(PLAIN[0], act)


def test_a_dead_zygote_ends_its_runs_and_its_successor_serves():
    """How it would have ended nobody can say."""

    def act(st: Stage) -> None:
        path = filters.script(st, '[ "$QMAILUSER" = alice ] || exit 99\nwhile :; do :; done')
        filters.start(st, path)

        async def scenario(st: Stage) -> None:
            going = asyncio.ensure_future(filters.ask(st))
            while not st.processes():
                await asyncio.sleep(0.005)
            os.kill(st.zygote.pid, signal.SIGKILL)
            os.waitpid(st.zygote.pid, 0)
            with pytest.raises(CallFailed) as failed:
                await going
            assert failed.value.cause == "zygote ended"
            assert wait_for(lambda: not st.processes(), timeout_s=1)
            st.zygote.close()
            filters.start(st, path)
            said = await filters.ask(st, sender=Mailbox("other", "example.org"))
            assert said.answer.verdict == Verdict("discard")

        filters.host(st, scenario)

    in_stage(PLAIN[0], act)


def test_runs_share_the_places_of_the_plugin_as_sandboxes_do():
    """One client network holds an eighth; who waits longer than overload_wait is put off (451 4.3.2)."""

    def act(st: Stage) -> None:
        filters.start(st, filters.script(st, "while :; do :; done"))

        async def scenario(st: Stage) -> None:
            going = [asyncio.ensure_future(filters.ask(st)) for _ in range(2)]
            while len(st.processes()) < 2:
                await asyncio.sleep(0.005)
            with pytest.raises(Overloaded):
                await filters.ask(st)
            for each in going:
                each.cancel()
            await filters.gather(*going)

        filters.host(st, scenario, sandboxes=16)

    in_stage(PLAIN[0], act)


PAST_A_PIPE = r"""
#include <string.h>
#include <unistd.h>
int main(void) {
    static char b[600000]; long n, at = 0; memset(b, 'y', sizeof b);
    while ((n = read(0, b + at, sizeof b - at)) > 0) at += n;
    return write(1, b, sizeof b) != sizeof b;
}
"""
"""What it has read and more, in one piece."""


async def hold_until_it_ends(st: Stage) -> None:
    """A busy worker: it looks at nothing before the program that was just asked has ended. And a large pipe,
    as every one is where pages are larger than 4 KiB."""
    while len(st.host.readers) < 2:
        await asyncio.sleep(0)
    (zygote,) = [fd for fd, reader in st.host.readers.items() if isinstance(reader, Runs)]
    (pipe,) = st.host.readers.keys() - {zygote}
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)
    assert select.select([zygote], [], [], 20.0)[0]


def test_all_of_its_output_counts_however_much_a_pipe_holds():
    """A message that was cut off would be delivered as if it were whole."""

    def act(st: Stage) -> None:
        filters.start(st, programs.binary(st, PAST_A_PIPE))

        async def scenario(st: Stage) -> None:
            going = asyncio.ensure_future(filters.ask(st))
            await hold_until_it_ends(st)
            assert (await going).message == MAIL + b"y" * (600_000 - len(MAIL))

        filters.host(st, scenario)

    in_stage(PLAIN[0], act)


@pytest.mark.parametrize("same", [0, 300_000], ids=["as it comes", "at its end"])
def test_want_of_descriptors_is_overload(same: int):
    """No file for what it writes: the lack is ours, so nothing is known against the program."""

    def act(st: Stage) -> None:
        filters.start(st, programs.binary(st, PAST_A_PIPE))

        async def scenario(st: Stage) -> None:
            going = asyncio.ensure_future(filters.ask(st, b"x" * same))
            await hold_until_it_ends(st)
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
            try:
                with pytest.raises(Overloaded, match="Too many open files"):
                    await going
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)

        filters.host(st, scenario)

    in_stage(PLAIN[0], act)


def test_nor_can_it_be_started_without():
    """Likewise."""

    def act(st: Stage) -> None:
        filters.start(st, "/bin/cat")

        async def scenario(st: Stage) -> None:
            await filters.ask(st)
            runs = next(reader for reader in st.host.readers.values() if isinstance(reader, Runs))
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
            try:
                with pytest.raises(Overloaded, match="Too many open files"):
                    runs.start({}, environment=b"")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)

        filters.host(st, scenario)

    in_stage(PLAIN[0], act)


def test_its_output_is_counted_among_the_copies_of_messages():
    """sandbox.message_copies: what differs lies in the worker's memory; what is the same does not."""

    def act(st: Stage) -> None:
        path = filters.script(
            st, 'read -r first\n[ "$QMAILUSER" = same ] || first=X\necho "$first"\nexec cat'
        )
        filters.start(st, path, execute=("/bin/cat",))
        mail = b"Subject: much\n" + MAIL * 10_000
        room = CopyBudget(len(mail))

        async def scenario(st: Stage) -> None:
            said = await filters.ask(st, mail)
            assert said.message is not None and said.message.startswith(b"X\n")
            room.take(len(mail))  # all of it is back
            with pytest.raises(Overloaded, match="budget"):
                await filters.ask(st, mail)
            assert (await filters.ask(st, mail, sender=Mailbox("same", "example.org"))).message is None
            room.give_back(len(mail))
            with pytest.raises(Overloaded, match="budget"):
                await filters.ask(st, mail + MAIL)
            room.take(len(mail))

        filters.host(st, scenario, room=room)

    in_stage(PLAIN[0], act)


def test_a_run_that_is_over_leaves_others_their_descriptors():
    """It is let go when its message was fetched: the number of its pipe may be another session's by then."""

    def act(st: Stage) -> None:
        filters.start(st, "/usr/bin/env")

        async def scenario(st: Stage) -> None:
            sandbox = await answered(st)
            others = [os.eventfd(0) for _ in range(20)]
            for other in others:
                st.host.readers[other] = types.SimpleNamespace(ready=lambda _events: None)
                st.host.epoll.register(other, select.EPOLLIN)
            sandbox.release()
            assert set(others) <= st.host.readers.keys()
            for other in others:
                st.host.forget(other)
                os.close(other)

        filters.host(st, scenario)

    in_stage(PLAIN[0], act)


@pytest.mark.slow
def test_a_zygote_that_takes_no_request_is_the_cause():
    """As of any plugin's sandbox: the plugin is not to blame, and breakers hear of it at once."""

    def act(st: Stage) -> None:
        filters.start(st, filters.script(st, "while :; do :; done"))

        async def scenario(st: Stage) -> None:
            os.kill(st.zygote.pid, signal.SIGSTOP)
            try:
                sandbox = await st.host.take(filters.NAME, "s1")
                with pytest.raises(CallFailed) as failed:
                    await filters.ask(st, sandbox=sandbox, timeout_s=0.3)
            finally:
                os.kill(st.zygote.pid, signal.SIGCONT)
            assert (failed.value.cause, sandbox.untaken) == ("unavailable", True)
            assert failed.value.detail == "its zygote started no program within 0.3 s"
            with pytest.raises(CallFailed) as failed:
                await filters.ask(st, timeout_s=5.0)  # ten times what a start takes on a busy machine
            assert failed.value.cause == "deadline"

        filters.host(st, scenario)

    in_stage(PLAIN[0], act)


FETCH = b'{"n":2,"hook":"body","args":{"offset":0}}'


async def answered(st: Stage, *, timeout_s: float = 20.0) -> Sandbox | Filter:
    """One that has answered with a message."""
    sandbox = await st.host.take(filters.NAME, "s1")
    await filters.ask(
        st, sandbox=types.SimpleNamespace(call=sandbox.call, release=lambda: None), timeout_s=timeout_s
    )
    return sandbox


@pytest.mark.parametrize("spent", ["none is left", pytest.param("it passes", marks=pytest.mark.slow)])
def test_its_message_is_fetched_within_the_calls_time(spent: str):
    """limits.message_timeout and sandbox.message_budget hold for that too; it is our lack, not its fault."""

    def act(st: Stage) -> None:
        filters.start(st, "/usr/bin/env")

        async def scenario(st: Stage) -> None:
            sandbox = await answered(st, timeout_s=3.0)
            if spent == "it passes":
                await asyncio.sleep(3.0)  # passing is what is tested
            with pytest.raises(Overloaded):
                await sandbox.call(FETCH, 2, timeout_s=3.0 if spent == "it passes" else 0.0)
            sandbox.close()

        filters.host(st, scenario)

    in_stage(PLAIN[0], act)


def test_who_holds_it_may_close_it_while_its_message_is_fetched():
    """Its files are closed then, and their numbers may be another session's."""

    def act(st: Stage) -> None:
        filters.start(st, "/usr/bin/env")

        async def scenario(st: Stage) -> None:
            sandbox = await answered(st)
            going = asyncio.ensure_future(sandbox.call(FETCH, 2, timeout_s=20.0))
            await asyncio.sleep(0)
            sandbox.close()
            with pytest.raises(CallFailed) as failed:
                await going
            assert failed.value.cause == "unavailable"

        filters.host(st, scenario)

    in_stage(PLAIN[0], act)


# --- the parts --------------------------------------------------------------------------------------------


@given(text=st_.binary(max_size=2000), code=st_.integers(0, 255))
def test_whatever_it_writes_is_fit_for_a_reply(text: bytes, code: int):
    """No octet of it can split a reply, or claim a class that its first one does not."""
    said = program_exits.verdict(code, text)
    if said is not None:
        check_answer(Answer(1, said), spec=HOOKS["message"], powers=Powers(discard=True))


@pytest.mark.parametrize(
    ("source", "written"),
    [
        (b"abc", b"abc"),
        (b"abc", b"ab"),
        (b"abc", b"abcd"),
        (b"abc", b"aXc"),
        (b"abc", b""),
        (b"", b"x"),
        (b"", b""),
    ],
)
def test_output_is_kept_from_where_it_differs(source: bytes, written: bytes):
    """Cut anywhere, it is what was written; and it is unchanged when that is all that was read."""
    for size in range(1, max(2, len(written) + 1)):
        with tempfile.TemporaryFile() as file:
            file.write(source)
            file.flush()
            output = Output(file.fileno(), source_size=len(source), limit=100)
            for at in range(0, len(written), size):
                reader, writer = os.pipe()
                os.write(writer, written[at : at + size])
                os.close(writer)
                assert output.read(reader)
                assert not output.read(reader)
                os.close(reader)
            kept = b"".join(output.piece(at, 1) for at in range(output.size))
            assert (kept, output.size, output.unchanged) == (written, len(written), source == written)
            output.close()
