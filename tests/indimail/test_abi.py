"""Compiled plugins in a real sandbox: what they are given, what they may say, what they cannot do."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from forkd.config.schema import Config
from forkd.kit.stage import NotStarted, Stage
from forkd.kit.try_so import Result, Tried, configured, try_so
from tests.indimail.compiling import OLD_TEXT, compiled, folder, row

WAYS = {
    "manual": ((), True),
    "manual, 2011": ((OLD_TEXT,), True),
    "plain": ((), False),
    "plain, 2011": ((OLD_TEXT,), False),
}


FEW = [way if way in ("manual, 2011", "plain") else pytest.param(way, marks=pytest.mark.slow) for way in WAYS]
"""All ways; the two that differ most are quick to try."""


def tried(tmp_path: Path, *files: Path, **how) -> Result:
    how = {"senders": ("a@client.example",), **how}
    return asyncio.run(try_so(Tried(files=files, **how), data_dir=tmp_path))


def replies(result: Result) -> list[str]:
    return [call.reply for call in result.calls]


def said(tmp_path: Path, file: Path, sender: str, **how) -> str:
    (call,) = tried(tmp_path, file, senders=(sender,), **how).calls
    return call.reply


VERDICTS = {
    "permanent": "550 5.7.1 not from you",
    "temporary": "451 4.7.1 come again",
    "negative": "553 5.7.1 sorry (#5.7.1)",
    "two": "530 5.7.1 two",
    "null": "550 5.7.1 Refused by a check of this server",
    "nocrlf": "550 5.7.1 no line end",
    "success": "550 5.7.1 Refused by a check of this server",
    "inject": "550 5.7.1 Refused by a check of this server",
    "lines": "550 5.7.1 first second",
    "unprintable": "550 5.7.1 Refused by a check of this server",
    "empty": "550 5.7.1 Refused by a check of this server",
    "syntax": "550 5.5.1 odd",
    "long": "550 5.7.1 Refused by a check of this server",
    "other": "",
    "ignored": "",
    "close": "421 4.7.0 go away",
}
"""Local part of the sender -> the client's reply; the last one ends the session."""


@pytest.mark.parametrize("way", FEW)
def test_a_plugin_says_the_same_however_it_was_compiled(tmp_path: Path, way: str):
    """The ABI: both headers, the manual's command and a plain one; any value but 0 refuses; NULL members."""
    defines, manual = WAYS[way]
    result = tried(
        tmp_path,
        compiled("sender", *defines, manual=manual),
        senders=tuple(f"{name}@b.c" for name in VERDICTS),
    )
    assert replies(result) == list(VERDICTS.values())


@pytest.mark.parametrize("way", FEW)
def test_the_template_changes_nothing(tmp_path: Path, way: str):
    """It sets a text in each function and returns 0: whatever *mesg holds then is nothing."""
    defines, manual = WAYS[way]
    file = compiled("template", *defines, manual=manual)
    result = tried(tmp_path, file, senders=("", "a@b.c"), recipients=("x@y.z", "z@y.z"))
    assert [call.function for call in result.calls] == [
        "mail_func",
        "rcpt_func",
        "rcpt_func",
        "data_func",
    ] * 2
    assert {call.returned for call in result.calls} == {(0,)}
    assert not result.refused and not result.failed


def test_arguments_are_those_of_qmail_smtpd(tmp_path: Path):
    """In lower case as a whole, quotes and backslashes gone; copies, that a plugin may write to."""
    result = tried(
        tmp_path,
        compiled("echo"),
        senders=("A.User@Example.ORG", '"a\\"  b"@x.y', "pass@x.y"),
        recipients=("Some.One@Z.example", "Write@x.y", "Pass@x.y", "postmaster"),
        environment={"MORE": "1"},
    )
    assert replies(result) == [
        "550 5.7.1 mail 192.0.2.1 a.user@example.org call 1 init 1",
        '550 5.7.1 mail 192.0.2.1 a"  b@x.y call 2 init 1',
        "",
        "550 5.7.1 rcpt 192.0.2.1 pass@x.y some.one@z.example call 4 init 1",
        "",
        "",
        "550 5.7.1 rcpt 192.0.2.1 pass@x.y postmaster call 7 init 1",
        "550 5.7.1 data mx.test.local 192.0.2.1 unknown (null) call 8",
    ]


def test_an_argument_stays_where_it_was(tmp_path: Path):
    """A plugin may keep the pointer to the sender until the next MAIL, as it may there."""
    result = tried(
        tmp_path,
        compiled("echo"),
        senders=("pass@x.y",),
        recipients=("pass@x.y", "other@x.y"),
        environment={"SHOWS_KEPT": "1"},
    )
    assert replies(result)[-1] == "550 5.7.1 from pass@x.y"


def test_what_is_known_of_the_client(tmp_path: Path):
    """remote host is its name, remote info who has authenticated; the null sender is the empty string."""
    file = compiled("echo")
    facts = {"remote_ip": "2001:db8::1", "remote_host": "client.example", "user": "joe"}
    assert said(tmp_path, file, "", **facts) == "550 5.7.1 mail 2001:db8::1 (empty) call 1 init 1"
    *_, last = tried(tmp_path, file, senders=("pass@x.y",), recipients=("pass@x.y",), **facts).calls
    assert last.reply == "550 5.7.1 data mx.test.local 2001:db8::1 client.example joe call 3"


KNOWN = {
    "TCPREMOTEIP": "192.0.2.1",
    "TCPREMOTEHOST": "unknown",
    "TCPLOCALIP": "192.0.2.25",
    "TCPLOCALHOST": "mx.test.local",
    "TCPLOCALPORT": "25",
}


def asked_for(names: list[str]) -> tuple[str, ...]:
    return tuple(f"env-{name.lower()}@x.y" for name in names)


def test_the_environment_of_a_stranger(tmp_path: Path):
    """The five that are always known, seen by getenv and by `environ`, and not one of ours."""
    absent = ["TCPREMOTEINFO", "RELAYCLIENT", "AUTHENTICATED", "SPFRESULT", "PATH", "TZ", "LD_ORIGIN_PATH"]
    result = tried(tmp_path, compiled("echo"), senders=asked_for([*KNOWN, *absent]))
    found = [f"550 5.7.1 {name}={value},{value} of 5" for name, value in KNOWN.items()]
    assert replies(result) == found + [f"550 5.7.1 {name}=(null),(null) of 5" for name in absent]


def test_the_environment_of_a_known_client(tmp_path: Path):
    """Who has authenticated, who may relay, what an earlier plugin exported, what the admin sets."""
    more = {"TCPREMOTEINFO": "joe", "RELAYCLIENT": "(empty)", "AUTHENTICATED": "1", "SPFRESULT": "pass"}
    more |= {"DNSBLLIST": "my list"}
    result = tried(
        tmp_path,
        compiled("echo"),
        senders=asked_for([*more]),
        user="joe",
        relay=True,
        exports={"SPFRESULT": "pass"},
        environment={"DNSBLLIST": "my list"},
    )
    assert replies(result) == [f"550 5.7.1 {name}={value},{value} of 10" for name, value in more.items()]


def test_each_transaction_has_the_environment_of_the_beginning(tmp_path: Path):
    """As qmail-smtpd puts it back at each MAIL: what a plugin set for one sender is gone for the next."""
    result = tried(tmp_path, compiled("echo"), senders=("setenv@x.y", "env-left_behind@x.y"))
    assert replies(result) == ["", "550 5.7.1 LEFT_BEHIND=(null),(null) of 5"]


def test_static_memory_is_fresh_in_each_session(tmp_path: Path):
    """Shipped plugins ask once, by a static flag, and rely on a process for each session."""
    file = compiled("echo")
    for _ in range(2):
        assert said(tmp_path, file, "x@y.z").endswith("call 1 init 1")


def test_the_entry_symbol_can_have_another_name(tmp_path: Path):
    """SMTP_PLUGIN_SYMB of qmail-smtpd."""
    assert said(tmp_path, compiled("echo"), "x@y.z", symbol="another_name").endswith("call 1 init 10")


def test_granted_files_can_be_read_and_others_not(tmp_path: Path):
    """Control files, where the admin grants them."""
    control = folder() / "control"
    control.write_text("secret\n")
    asks = {"environment": {"READS": str(control)}}
    assert said(tmp_path, compiled("echo"), "file@x.y", **asks) == "550 5.7.1 file: cannot be read"
    assert said(tmp_path, compiled("echo"), "file@x.y", reads=(control,), **asks) == "550 5.7.1 file: secret"


# --- several of them --------------------------------------------------------------------------------------


def test_a_row_of_more_than_ten_is_asked_in_order(tmp_path: Path):
    """The base name, then 0, 1, 2 … 11 up to the gap; the first refusal is the last call. The same symbol in
    each stays its own. (qmail-smtpd with 0 to 9: an endless loop.)"""
    numbers = (None, *range(12), 13)
    result = tried(tmp_path, row(*numbers), senders=("99@x.y", "5@x.y", "11@x.y", "13@x.y"))
    assert [len(call.returned) for call in result.calls] == [1, 7, 13, 13]
    assert [call.returned[-1] for call in result.calls] == [1, 1, 1, 0]
    assert replies(result) == [*(f"550 5.7.1 I am number {number}" for number in (99, 5, 11)), ""]


def test_another_base_name_and_a_row_without_it(tmp_path: Path):
    """SMTP_PLUGIN of qmail-smtpd; without the base file the row begins at 0."""
    place = row(0, 1, base="mine")
    result = tried(tmp_path, place, base="mine.so", senders=("1@x.y",))
    assert [file.name for file in result.files] == ["mine0.so", "mine1.so"]
    assert replies(result) == ["550 5.7.1 I am number 1"]


# --- harm -------------------------------------------------------------------------------------------------

CRASHES = {
    "segv": "SIGSEGV",
    "abort": "SIG",
    "exit0": "exit 0",
    "exit3": "exit 3",
    "quit": "exit 0",
    "overflow": "SIGSEGV",
    "garbage": "SIGSEGV",
    "longjmp": "",
}


def mostly_slow(everything, *quick):
    return [how if how in quick else pytest.param(how, marks=pytest.mark.slow) for how in everything]


@pytest.mark.parametrize("how", mostly_slow(CRASHES, "segv", "exit0", "longjmp"))
def test_a_crash_is_a_421_and_the_log_knows_whose(tmp_path: Path, how: str):
    """The client gets 421 and no word of why; qmail-smtpd's session would end without a reply."""
    file = compiled("sender" if how == "garbage" else "faults")
    result = tried(tmp_path, file, senders=(f"{how}@b.c",))
    (call,) = result.calls
    assert (call.failure, call.reply[:9]) == ("crash", "421 4.3.0")
    assert CRASHES[how] in call.detail
    if "SIGSEGV" in call.detail:
        assert (
            f"{file.name} mail_func" in call.output + tried(tmp_path, file, senders=(f"{how}@b.c",)).printed
        )


@pytest.mark.parametrize(("sender", "recipient"), [("a@b.c", "segv@b.c"), ("a@b.c", "data-abort@b.c")])
def test_a_crash_at_another_function(tmp_path: Path, sender: str, recipient: str):
    """rcpt_func and data_func likewise."""
    *_, last = tried(tmp_path, compiled("faults"), senders=(sender,), recipients=(recipient,)).calls
    assert (last.failure, last.reply[:9]) == ("crash", "421 4.3.0")


@pytest.mark.parametrize("how", mostly_slow(["sleep", "blocked", "loop", "flood"], "blocked"))
def test_who_does_not_come_back_is_killed(tmp_path: Path, how: str):
    """At its deadline, with every signal blocked as well; nothing waits for it any longer."""
    (call,) = tried(tmp_path, compiled("faults"), senders=(f"{how}@b.c",), timeout_s=0.3).calls
    assert (call.failure, call.reply[:9]) == ("deadline", "421 4.3.0")


def test_processor_time_has_a_limit_of_its_own(tmp_path: Path):
    """limits.cpu, whatever the deadline: the process dies by the kernel's timer."""
    (call,) = tried(tmp_path, compiled("faults"), senders=("loop@b.c",), timeout_s=60.0, cpu_s=0.2).calls
    assert (call.failure, call.reply[:9]) == ("cpu", "421 4.3.0")


def test_what_it_may_not_do(tmp_path: Path):
    """No process, thread, file that was not granted, nothing written, no network, program, signal."""
    assert said(tmp_path, compiled("faults"), "tries@b.c") == (
        "550 5.7.1 fork=-1/1 thread=1 open=-1/2 write=-1/13 socket=-1/13 exec=-1/13 kill=-1/1"
    )
    assert not Path("/tmp/forkd-indimail-was-here").exists()


def test_an_attack_while_it_is_loaded_comes_to_nothing(tmp_path: Path):
    """A constructor runs behind the same walls; no memory turns executable but a file's own code."""
    expected = "550 5.7.1 thread=1 fork=-1 socket=-1 dup=-1 close=-1 kill=-1 code=1 turned=-1"
    assert said(tmp_path, compiled("hostile_load"), "a@b.c") == expected


def test_the_zygote_never_has_its_code(tmp_path: Path):
    """It tries the plugin in a fork, and forks: so no plugin runs where sandboxes are made."""
    file = compiled("template")

    async def mapped() -> str:
        plugin = configured(Tried(files=()), (file,))
        async with Stage(plugin, Config(), data_dir=tmp_path) as stage:
            return Path(f"/proc/{stage.pid}/maps").read_text()

    if os.geteuid() == 0:  # nobody else may look
        maps = asyncio.run(mapped())
        assert "libc" in maps and file.name not in maps


# --- the trial before the start ---------------------------------------------------------------------------

UNUSABLE = {
    1: "plugin_init() returned NULL, and no table of functions",
    2: "cannot be loaded: it ended the process with SIGSEGV",
    3: "has no function plugin_init()",
    4: "cannot be loaded: it ended the process with SIGSEGV",
    5: "cannot be loaded: it ended the process with exit status 3",
    6: "cannot be loaded: it was not done within 0.3 s",
    7: "cannot be loaded: it was not done within 0.3 s",
    8: "cannot be loaded: undefined symbol: nobody_has_this_variable",
    9: "cannot be loaded: it ended the process with SIG",
    10: "cannot be loaded: it ended the process with exit status 0",
}


@pytest.mark.parametrize("how", mostly_slow(UNUSABLE, 1, 3, 4, 6, 10))
def test_what_cannot_be_used_is_found_before_the_start(tmp_path: Path, how: int):
    """A throw-away sandbox tries it: one line with the file's name, whatever it does there."""
    file = compiled("unusable", f"-DHOW={how}")
    with pytest.raises(NotStarted) as why:
        tried(tmp_path, file, timeout_s=0.3)
    assert str(why.value).startswith(str(file)) and UNUSABLE[how] in str(why.value)
    assert "\n" not in str(why.value)


def test_the_one_at_fault_in_a_row_is_named(tmp_path: Path):
    """Not the first one."""
    with pytest.raises(NotStarted, match="unusable"):
        tried(tmp_path, compiled("template"), compiled("unusable", "-DHOW=4"), compiled("echo"))


def test_a_function_that_nobody_has_and_nobody_calls_is_no_fault(tmp_path: Path):
    """RTLD_LAZY, as qmail-smtpd opens them."""
    file = compiled("unusable", "-DHOW=8", "-DFUNCTION_ONLY")
    assert replies(tried(tmp_path, file)) == [""]


def test_no_shared_object_at_all(tmp_path: Path):
    """What the loader says of it."""
    file = folder() / "text.so"
    file.write_text("no code\n")
    with pytest.raises(NotStarted, match=r"text\.so cannot be loaded: file too short"):
        tried(tmp_path, file)


def test_a_library_beside_it_is_readable_where_it_is_granted(tmp_path: Path):
    """Its own libraries: those of the system always, others as files."""
    place = folder() / "beside"
    place.mkdir()
    library = place / "libhelper.so"
    shutil.copy(compiled("helper"), library)
    file = compiled("uses_helper", f"-L{place}", "-Wl,--no-as-needed", "-lhelper", f"-Wl,-rpath,{place}")
    with pytest.raises(NotStarted, match=r"libhelper\.so: cannot open shared object file"):
        tried(tmp_path, file)
    assert said(tmp_path, file, "a@b.c", reads=(library,)) == "550 5.7.1 helped"
