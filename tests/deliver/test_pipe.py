"""deliver/pipe.py, qmgr/pipes.py: mail into real programs, each behind its walls."""

from __future__ import annotations

import asyncio
import contextlib
import mailbox
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from forkd.deliver.transport import Result, Target
from forkd.exits import Exit
from forkd.master.errors import StartError
from forkd.queue.format import Damaged
from tests.support import piping, programs
from tests.support.piping import once
from tests.support.sandboxes import MODES, Stage, as_mode, stage
from tests.support.waiting import wait_for

KEEP = 'cat > "$1/$2"'
"""A program that writes its standard input to a file: folder and name are its arguments."""


def in_stage(mode: str, act: Callable[[Stage], None]) -> None:
    def body() -> None:
        with stage(mode) as st:
            act(st)

    as_mode(mode, body)


def said(results) -> list[tuple[str, str]]:
    return [(result.status, result.enhanced) for result in results]


@pytest.mark.parametrize("mode", MODES)
def test_a_program_that_reads_it_all_has_the_mail(mode: str):
    """cat is a delivery program; what it writes comes back as the reason, LF line ends, our fields on top."""

    def act(st: Stage) -> None:
        item = piping.a_message(st)
        (result,) = once(piping.start(st, "/bin/cat"), st, item)
        assert (result.status, result.enhanced) == ("delivered", "2.0.0")
        assert result.text.startswith(
            "the program has it: Return-Path: <sender@example.org> Delivered-To: bob@test.local Received: "
        )
        assert result.text.endswith(" Subject: hello body")

    in_stage(mode, act)


@pytest.mark.parametrize("mode", MODES)
def test_a_folder_that_is_granted_can_be_written_and_no_other(mode: str):
    """As procmail and maildrop work: files made, synced, renamed, linked, locked, removed; in there alone."""

    def act(st: Stage) -> None:
        out, other = piping.folder(st), piping.folder(st, "other")
        text = f"""
set -e
cd {out}
mkdir tmp new
cat > tmp/1
exec 9> lock
/usr/bin/flock -n 9
sync tmp/1
mv tmp/1 new/1
ln new/1 new/2
rm new/2 lock
echo more >> new/1
for place in {other} {st.folder} /tmp /var/tmp "$HOME"; do
  (echo x > "$place/x") 2>/dev/null && exit 65
done
exit 0
"""
        config = piping.script(
            st,
            text,
            write=(out,),
            processes=3,
            exec=tuple(map(Path, ("/bin/cat", "/bin/mkdir", "/bin/mv", "/bin/ln", "/bin/rm", "/bin/sync",
                                  "/usr/bin/flock"))),
        )  # fmt: skip
        (result,) = once(config, st)
        assert (result.status, result.text) == ("delivered", "the program has it")
        assert sorted(path.name for path in out.rglob("*")) == ["1", "new", "tmp"]
        kept = (out / "new/1").read_bytes()
        assert kept.startswith(b"Return-Path: <sender@example.org>\nDelivered-To: bob@test.local\nReceived: ")
        assert kept.endswith(b"\nSubject: hello\n\nbody\nmore\n")
        assert not list(other.iterdir())

    in_stage(mode, act)


def test_an_mbox_is_written_and_read_back():
    """from_line: the separator of mbox files, read by Python's mailbox; the null sender is MAILER-DAEMON."""

    def act(st: Stage) -> None:
        out = piping.folder(st)
        config = piping.script(
            st, 'cat >> "$1"; echo >> "$1"', argv=(str(out / "mbox"),), from_line=True, write=(out,),
            exec=(Path("/bin/cat"),), processes=1,
        )  # fmt: skip
        for sender in ("alice@example.org", ""):
            assert said(once(config, st, piping.a_message(st, sender=sender))) == [("delivered", "2.0.0")]
        with contextlib.closing(mailbox.mbox(out / "mbox", create=False)) as box:
            assert [mail["subject"] for mail in box] == ["hello"] * 2
            assert [mail["return-path"] for mail in box] == ["<alice@example.org>", "<>"]
            assert [mail.get_from().split()[0] for mail in box] == ["alice@example.org", "MAILER-DAEMON"]

    in_stage(MODES[0], act)


def test_what_is_switched_off_is_not_on_top():
    def act(st: Stage) -> None:
        (result,) = once(piping.start(st, "/bin/cat", return_path=False, delivered_to=False), st)
        assert result.text.startswith("the program has it: Received: ")

    in_stage(MODES[0], act)


HOSTILE = "$(touch x);`id`|a b'c\"&&<>*?\\"


def test_whatever_stands_in_an_address_stays_one_argument():
    """No shell, no splitting; a field within a word too; quotes of the address are not the user's."""

    def act(st: Stage) -> None:
        target = Target(0, f'"{HOSTILE}"@test.local', HOSTILE, "test.local", "de tail", "orig@x")
        argv = (
            "-d${user}",
            "${detail}",
            "--to=${recipient}!",
            "${original_recipient}",
            "${sender}",
            "$user",
            "${domain}",
        )
        config = piping.script(st, 'for word; do printf "[%s]" "$word"; done', argv=argv)
        (result,) = once(config, st, targets=(target,))
        assert result.text == (
            f'the program has it: [-d{HOSTILE}][de tail][--to="{HOSTILE}"@test.local!][orig@x]'
            "[sender@example.org][$user][test.local]"
        )

    in_stage(MODES[0], act)


def test_one_run_for_each_recipient_and_each_has_its_own_end():
    """Results in the order of the targets."""

    def act(st: Stage) -> None:
        targets = tuple(Target(n, f"u{n}@test.local", f"u{n}", "test.local") for n in range(3))
        config = piping.script(
            st, '[ "$1" = u1 ] && exit 67; echo "$RECIPIENT $EXT $NUMRCPTS"', argv=("${user}",)
        )
        results = once(config, st, targets=targets)
        assert said(results) == [("delivered", "2.0.0"), ("failed", "5.1.1"), ("delivered", "2.0.0")]
        assert [result.target for result in results] == list(targets)
        assert results[2].text == "the program has it: u2@test.local 1"

    in_stage(MODES[0], act)


def test_one_run_for_all_recipients():
    """per = "message": a word with a recipient's field is repeated; no Delivered-To; one end for all."""

    def act(st: Stage) -> None:
        targets = tuple(Target(n, f"u{n}@test.local", f"u{n}", "test.local") for n in range(3))
        config = piping.script(
            st, 'echo "$*" "$NUMRCPTS" "${RECIPIENT-none}"; grep -c Delivered-To; exit 75',
            argv=("-f", "${sender}", "--", "<${user}>"), per="message", exec=(Path("/bin/grep"),),
            processes=1,
        )  # fmt: skip
        results = once(config, st, targets=targets)
        assert said(results) == [("deferred", "4.3.0")] * 3
        assert results[0].text == "exit 75 (not now): -f sender@example.org -- <u0> <u1> <u2> 3 none 0"

    in_stage(MODES[0], act)


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (("${user}",), ("failed", "5.1.3")),
        (("x", "${recipient}"), ("failed", "5.1.3")),
        (("--", "${user}"), ("delivered", "2.0.0")),
        (("-d", "u=${user}"), ("delivered", "2.0.0")),
        (("-d${user}",), ("delivered", "2.0.0")),
    ],
    ids=["word", "address", "after --", "within", "of an option"],
)
def test_an_address_is_no_option(argv: tuple[str, ...], status: tuple[str, str]):
    """A user `-rf` must not be an option of the program; where the admin has said `--`, or -d, it is none."""

    def act(st: Stage) -> None:
        target = Target(0, "-rf@test.local", "-rf", "test.local")
        assert said(once(piping.script(st, "exit 0", argv=argv), st, targets=(target,))) == [status]

    in_stage(MODES[0], act)


@pytest.mark.parametrize(
    ("word", "user", "status"),
    [
        ("/srv/${user}/inbox", "../alice", "failed"),
        ("/srv/${user}/inbox", "..", "failed"),
        ("--file=/srv/${domain}/${user}", "a/b", "failed"),
        ("/srv/${user}/inbox", "a..b", "delivered"),
        ("${user}", "a/b", "delivered"),
        ("/srv/inbox", "a/b", "delivered"),
    ],
    ids=["above", "dots", "option", "dots within", "alone", "no field"],
)
def test_an_address_is_no_other_path(word: str, user: str, status: str):
    """`/` is a letter of addresses (RFC 5322 atext): within a path it would lead to somebody else's file."""

    def act(st: Stage) -> None:
        target = Target(0, f"{user}@test.local", user, "test.local")
        (result,) = once(piping.script(st, "exit 0", argv=(word,)), st, targets=(target,))
        assert result.status == status
        assert ("another path" in result.text) is (status == "failed")

    in_stage(MODES[0], act)


def test_the_environment_is_what_page_and_admin_say():
    """Nothing of qmgr's own; names of qmail-command(8) and of program plugins."""

    def act(st: Stage) -> None:
        os.environ["FORKD_TEST_SECRET"] = "x"
        config = piping.start(st, "/usr/bin/env", environment={"MODE": "fast"})
        item = piping.a_message(st, client_ip="192.0.2.1", user="alice")
        (result,) = once(config, st, item, (Target(0, "bob+x@test.local", "bob", "test.local", "x"),))
        words = set(result.text.partition(": ")[2].split())
        size = next(word for word in words if word.startswith("MSGSIZE="))
        assert words == {
            "PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C.UTF-8", "MODE=fast", "SENDER=sender@example.org",
            "RECIPIENT=bob+x@test.local", "LOCAL=bob+x", "EXT=x", "HOST=test.local", "QMAILUSER=sender",
            "QMAILHOST=example.org", "QMAILRCPTS=bob+x@test.local", "NUMRCPTS=1", "TCPREMOTEIP=192.0.2.1",
            "TCPREMOTEINFO=alice", "ENVSIZE=39", size,
        }  # fmt: skip

    in_stage(MODES[0], act)


def test_a_mail_that_was_here_before_is_a_loop():
    """As for Maildirs; the program is not asked."""

    def act(st: Stage) -> None:
        item = piping.a_message(st, b"delivered-to: BOB@test.local\r\n\r\n")
        config = piping.start(st, "/bin/cat")
        assert said(once(config, st, item)) == [("failed", "5.4.6")]
        assert said(once(piping.changed(config, delivered_to=False), st, item)) == [("delivered", "2.0.0")]

    in_stage(MODES[0], act)


@pytest.mark.parametrize("mode", MODES)
def test_one_that_hangs_is_killed_with_what_it_started(mode: str):
    """Spinning, sleeping, signals ignored, its output kept open: all gone in time, the mail waits."""

    def act(st: Stage) -> None:
        text = "echo working\ntrap '' TERM INT HUP\n(sleep 100) &\n(while :; do :; done) &\nsleep 100\n:"
        config = piping.script(st, text, timeout=1.0, processes=5, exec=(Path("/bin/sleep"),))
        (result,) = once(config, st)
        assert (result.status, result.enhanced) == ("deferred", "4.3.0")
        assert result.text == "no end within 1 s: it was killed: working"

    in_stage(mode, act)


def test_what_it_left_behind_ends_with_it():
    """The mail counts as delivered when the program itself has ended."""

    def act(st: Stage) -> None:
        config = piping.script(st, "sleep 100 &\nexit 0", processes=2, exec=(Path("/bin/sleep"),))
        assert said(once(config, st)) == [("delivered", "2.0.0")]  # once() looks for processes left

    in_stage(MODES[0], act)


def test_one_that_forks_without_end_is_bounded():
    """`processes`: the bomb meets its limit, and is killed as one."""

    def act(st: Stage) -> None:
        text = ":() { : | : & }\nwhile :; do (:; sleep 100) & done"
        config = piping.script(st, text, timeout=2.0, processes=10, exec=(Path("/bin/sleep"),), connections=1)
        (result,) = once(config, st)
        assert result.status == "deferred"

    in_stage(MODES[0], act)


def test_one_that_writes_a_gigabyte_does_not_fill_anything():
    """Read and dropped, but for the beginning; it never waits for us, and its end counts."""

    def act(st: Stage) -> None:
        text = "echo 5.2.2 mailbox full\n/usr/bin/head -c 1073741824 /dev/zero\nexit 75"
        config = piping.script(
            st, text, files=(Path("/dev/zero"),), exec=(Path("/usr/bin/head"),), processes=1, cpu=60.0
        )
        (result,) = once(config, st)
        assert (result.status, result.enhanced) == ("failed", "5.2.2")
        assert result.text.startswith("exit 75 (not now): mailbox full ")
        assert len(result.text) < 1000

    in_stage(MODES[0], act)


def test_a_file_has_a_limit():
    """file_size: what is too large is the program's failure, and the mail waits."""

    def act(st: Stage) -> None:
        out = piping.folder(st)
        config = piping.script(
            st, f"exec /usr/bin/head -c 100000 /dev/zero > {out}/x", write=(out,), file_size=4096,
            files=(Path("/dev/zero"),), exec=(Path("/usr/bin/head"),),
        )  # fmt: skip
        (result,) = once(config, st)
        assert result.text == "killed by SIGXFSZ: it wrote too large a file (file_size)"
        assert (out / "x").stat().st_size <= 4096

    in_stage(MODES[0], act)


def test_one_that_cannot_be_started_any_more_is_tried_again():
    """Its admin has closed it after forkd had started; 127 is no status of the program's."""

    def act(st: Stage) -> None:
        config = piping.script(st, "exit 0")
        (st.folder / "program").chmod(0o600)
        (result,) = once(config, st)
        assert (result.status, result.enhanced) == ("deferred", "4.3.5")
        assert "could not be started" in result.text

    in_stage(MODES[0], act)


def test_without_its_zygote_the_mail_waits():
    """It died, and master has not started the next one yet; or qmgr was started without it."""

    def act(st: Stage) -> None:
        config = piping.script(st, "exit 0")
        assert said(once(config, st)) == [("delivered", "2.0.0")]
        st.path = str(st.folder / "nobody.sock")
        assert said(once(config, st)) == [("deferred", "4.3.0")]

    in_stage(MODES[0], act)


def test_one_that_lost_its_zygote_in_the_middle_is_killed_and_tried_again():
    """How it ended nobody would say."""

    def act(st: Stage) -> None:
        config = piping.script(st, "while :; do :; done")

        async def scenario() -> None:
            going = asyncio.ensure_future(piping.deliver(config, st, piping.a_message(st)))
            while not st.processes():
                await asyncio.sleep(0.005)
            st.end()
            results = await going
            assert isinstance(results, list)
            assert said(results) == [("deferred", "4.3.0")]

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(scenario())

    in_stage(MODES[0], act)


def test_a_delivery_that_is_cancelled_leaves_no_program():
    """qmgr stops: what it has not told by then is tried again."""

    def act(st: Stage) -> None:
        config = piping.script(st, "while :; do :; done")

        async def scenario() -> None:
            going = asyncio.ensure_future(piping.deliver(config, st, piping.a_message(st)))
            while not st.processes():
                await asyncio.sleep(0.005)
            going.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going
            assert wait_for(lambda: not st.processes(), timeout_s=5)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(scenario())

    in_stage(MODES[0], act)


def test_who_had_it_when_qmgr_stopped_does_not_get_it_again():
    """Of a message with a run for each recipient: what has ended is told, the rest tried again."""

    def act(st: Stage) -> None:
        out = piping.folder(st)
        text = '[ "$1" = u0 ] && exit 0; : > "$2/begun"; while :; do :; done'
        config = piping.script(st, text, argv=("${user}", str(out)), write=(out,))
        targets = tuple(Target(n, f"u{n}@test.local", f"u{n}", "test.local") for n in range(3))

        async def scenario() -> list[Result] | Damaged:
            going = asyncio.ensure_future(piping.deliver(config, st, piping.a_message(st), targets))
            while not (out / "begun").exists():
                await asyncio.sleep(0.005)
            going.cancel()
            return await going

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            results = runner.run(scenario())
        assert isinstance(results, list)
        assert [(result.target.index, result.status) for result in results] == [(0, "delivered")]
        assert wait_for(lambda: not st.processes(), timeout_s=5)

    in_stage(MODES[0], act)


def test_a_damaged_message_reaches_no_program():
    """Its checksum is compared before the program starts."""

    def act(st: Stage) -> None:
        out = piping.folder(st)
        config = piping.script(
            st, KEEP, argv=(str(out), "x"), write=(out,), exec=(Path("/bin/cat"),), processes=1
        )
        item = piping.a_message(st, b"Subject: large\r\n\r\n" + b"line\r\n" * 60_000)
        assert said(once(config, st, item)) == [("delivered", "2.0.0")]
        assert (out / "x").read_bytes().endswith(b"line\n" * 60_000)
        (out / "x").unlink()
        with Path(item.path).open("r+b") as file:
            file.seek(1000)
            file.write(b"?")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            assert isinstance(runner.run(piping.deliver(config, st, item)), Damaged)
        assert not list(out.iterdir())

    in_stage(MODES[0], act)


@pytest.mark.skipif(os.geteuid() != 0, reason="lack of the machine: only root gives uids")
def test_a_folder_that_its_user_cannot_write_is_said_at_start(tmp_path: Path):
    """With the command that mends it; not with the first mail."""

    def act(st: Stage) -> None:
        out = st.folder / "out"
        out.mkdir()
        with pytest.raises(StartError) as error:
            piping.script(st, "exit 0", write=(out,))
        assert error.value.status == Exit.CONFIG
        assert f"cannot write {out}; chown {st.uid} {out}" in str(error.value)
        os.chown(out, st.uid or 0, 0)
        assert said(once(piping.script(st, "exit 0", write=(out,)), st)) == [("delivered", "2.0.0")]

    in_stage("root", act)


def test_programs_of_two_messages_run_at_once():
    """`connections`; and one of them that fails harms no other."""

    def act(st: Stage) -> None:
        out = piping.folder(st)
        text = 'echo > "$1/$2"\nwhile [ ! -e "$1/a" ] || [ ! -e "$1/b" ]; do :; done\n[ "$2" = a ]'
        config = piping.script(st, text, argv=(str(out), "${user}"), write=(out,), connections=2)

        async def scenario() -> None:
            targets = [Target(0, f"{name}@test.local", name, "test.local") for name in "ab"]
            both = await asyncio.gather(
                *(piping.deliver(config, st, piping.a_message(st), (target,)) for target in targets)
            )
            assert [said(each) for each in both] == [[("delivered", "2.0.0")], [("deferred", "4.3.0")]]

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(scenario())

    in_stage(MODES[0], act)


def test_a_small_program_in_c_sees_a_file_it_can_seek():
    """Its standard input is a file at its beginning: some read it twice."""
    source = r"""
#include <unistd.h>
int main(void) {
    char a[8], b[8];
    read(0, a, 8); lseek(0, 0, 0); read(0, b, 8);
    return __builtin_memcmp(a, b, 8) == 0 ? 0 : 65;
}
"""

    def act(st: Stage) -> None:
        (result,) = once(piping.start(st, programs.binary(st, source)), st)
        assert result.text == "the program has it"

    in_stage(MODES[0], act)
