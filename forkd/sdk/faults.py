"""What happens when a plugin fails? Faults to try it with: in a test without a server, or for real.

In pytest a session can be told how the plugin fails, and answers as a client would see it, by the admin's
`on_failure`:

    def test_a_crash_at_rcpt_turns_the_client_away_for_now():
        session = load_plugin("plugins/tagger").session().with_fault("crash", at="rcpt", on_failure="defer")
        assert_passed(session.mail("joe@client.example"))
        answer = session.rcpt("a@test.local")
        assert_failed(answer, "crash")
        assert_deferred(answer, enhanced="4.3.0")       # 451 4.3.0 and no word of why

A plugin that has failed is not asked again in that session: its on_failure answers at its later hooks too.
`"overload"` is the one that is not the plugin's fault: 451 4.3.2, and it is asked again.

A capability can fail as well. Faulty() stands in its place, and raises what you say at every call:

    def test_without_the_store_nobody_is_put_off():
        plugin = load_plugin("plugins/greylist")
        assert_passed(plugin.session(state=Faulty(Unavailable("away"))).rcpt("a@test.local"))

`dns=` and `targets=` take it likewise, with QuotaExceeded or NotGranted too. A name server that does not
answer is no exception: FakeDns({"slow.example": "temporary"}) of forkd.sdk.fakes.

For real, in a plugin's hook and in a sandbox (never in pytest: it would be pytest that crashes), commit()
does what FAULTS names:

    def rcpt(session, recipient):
        if recipient.local.startswith("fault-"):
            faults.commit(recipient.local.removeprefix("fault-"))    # fault-hang, fault-kill_at_byte:7

`forkd plugin test` then shows what a client gets, and that nothing else is touched.
"""

from __future__ import annotations

from forkd.sdk.verdicts import Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

CAUSES = (
    *("crash", "deadline", "cpu", "memory", "syscall", "exception", "protocol", "unavailable"),
    "overload",
)
"""How a call can bring no answer, as forkd's log names it."""

_CHANNEL_FD = 3
"""Where a sandbox speaks to its worker."""


class Faulty:
    """In the place of a session's dns, state or targets: every call raises `error`, and is in `calls`."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def fail(*_: object, **__: object) -> NoReturn:
            self.calls.append(name)
            raise self.error

        return fail


class Failing:
    """A plugin that fails from one hook on.

    cause       one of CAUSES.
    at          the hook at which it happens first.
    on_failure  what its admin chose: disconnect, defer, deny or skip.
    Raises      ValueError for words that are none of these.
    """

    __slots__ = ("_failed", "at", "cause", "on_failure")

    def __init__(self, cause: str, *, at: str, on_failure: str = "disconnect") -> None:
        if cause not in CAUSES:
            raise ValueError(f"{cause!r} is none of {', '.join(CAUSES)}")
        if on_failure not in _ON_FAILURE:
            raise ValueError(f"{on_failure!r} is none of {', '.join(_ON_FAILURE)}")
        if at not in _HOOKS:
            raise ValueError(f"{at!r} is none of {', '.join(_HOOKS)}")
        self.cause = cause
        self.at = at
        self.on_failure = on_failure
        self._failed = False

    def happens(self, hook: str) -> str:
        """The cause at this hook; empty: it is asked as ever. A failure lasts; an overload does not."""
        if hook != self.at and not self._failed:
            return ""
        if self.cause != "overload":
            first, self._failed = not self._failed, True
            return self.cause if first else "failed earlier"
        return self.cause

    def verdict(self, hook: str) -> Verdict | None:
        """What the client gets then; None: nothing of it, the command goes on."""
        if hook == "disconnect":
            return None
        if self.cause == "overload":
            said = _BUSY
        else:
            chosen = _ON_FAILURE[self.on_failure]
            if chosen is None:
                return None
            said = chosen
        if said.do == "defer" and hook == "connect":
            return Verdict("disconnect", 421, said.enhanced, said.text)
        code = _CODES.get((hook, said.do), said.code)
        return Verdict(said.do, code, said.enhanced, said.text)


_HOOKS = ("connect", "helo", "auth", "mail", "rcpt", "data", "message", "disconnect")
_LATER = "A check of this server is not available now, please try again later"
_ON_FAILURE: dict[str, Verdict | None] = {
    "disconnect": Verdict("disconnect", 421, "4.3.0", _LATER),
    "defer": Verdict("defer", 451, "4.3.0", _LATER),
    "deny": Verdict("deny", 550, "5.3.0", "A check of this server failed, the mail is not taken"),
    "skip": None,
}
"""As forkd/hooks/spec.py has them; a test compares the two."""
_BUSY = Verdict("defer", 451, "4.3.2", "Too busy for a check, please try again later")
_CODES = {("connect", "deny"): 554, ("auth", "deny"): 535, ("auth", "defer"): 454}


# --- for real -------------------------------------------------------------------------------------------


class Fault:
    """One way to fail. `causes`: what forkd may call it; `does`: in words."""

    __slots__ = ("act", "causes", "does")

    def __init__(self, act: Callable[[str], object], causes: tuple[str, ...], does: str) -> None:
        self.act = act
        self.causes = causes
        self.does = does

    def __repr__(self) -> str:
        return f"Fault({self.does!r}, {', '.join(self.causes)})"


def commit(what: str) -> None:
    """Fail: `what` is a name of FAULTS, with an argument behind a colon where it takes one.

    Only in a sandbox. Raises KeyError for another word.
    """
    name, _, argument = what.partition(":")
    FAULTS[name].act(argument)


def _segfault(_: str) -> None:
    import ctypes  # noqa: PLC0415 - who does not fail does not pay

    ctypes.string_at(0)


def _exit(status: str) -> None:
    import os  # noqa: PLC0415

    os._exit(int(status or 0))


def _hang(_: str) -> None:
    import time  # noqa: PLC0415

    while True:
        time.sleep(3600)


def _spin(_: str) -> None:
    while True:
        pass


def _allocate(mebibytes: str) -> None:
    """Until there is no more, or as much as was asked for."""
    kept = []
    for _ in range(int(mebibytes or 1 << 20)):
        kept.append(bytearray(1 << 20))


def _recurse(_: str) -> None:
    def deeper(level: int) -> int:
        return deeper(level + 1) + 1

    deeper(0)


def _flood(lines: str) -> None:
    """Print; the hook answers after that."""
    for number in range(int(lines or 10_000)):
        print(f"line {number} \x1b[31m{'x' * 200}")


def _send(record: bytes) -> None:
    import os  # noqa: PLC0415

    os.write(_CHANNEL_FD, record)


def _kill_at_byte(count: str) -> None:
    """So many bytes of an answer, and it is gone: 0 is an end without an answer."""
    answer = b'{"n":1,"verdict":{"do":"deny","code":550,"enhanced":"5.7.1","text":"cut"}}'
    if int(count or 0):
        _send(answer[: int(count)])
    _exit("1")


def _wrong_frame(kind: str) -> None:
    """A record that is no answer, and then the answer, too late."""
    _send(WRONG_FRAMES[kind or "garbage"])


def _answers_without_end(_: str) -> None:
    while True:
        _send(b'{"n":1}')


def _close(_: str) -> None:
    import os  # noqa: PLC0415

    os.close(_CHANNEL_FD)
    _hang("")


def _refused_call(_: str) -> None:
    import ctypes  # noqa: PLC0415

    ctypes.CDLL(None).ptrace(0, 0, 0, 0)


def _raise(text: str) -> None:
    raise RuntimeError(text or "a fault was asked for")


class _LiesError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("an exception that cannot be shown")


def _raise_unprintable(_: str) -> None:
    raise _LiesError


def _leave_python(_: str) -> None:
    raise SystemExit(0)


def _wrong_answer(_: str) -> None:
    """A verdict in good form that no manifest covers here."""
    _send(b'{"n":1,"verdict":{"do":"accept","code":250,"text":"\\r\\n250 ok"}}')


WRONG_FRAMES = {
    "garbage": b"\xff\xfe\x00 no frame",
    "empty": b"",
    "cut": b'{"n":1,"verd',
    "text": b"250 Ok\r\n",
    "list": b"[]",
    "number": b'{"n":4711}',
    "negative": b'{"n":-1}',
    "huge": b'{"n":99999999999999999999}',
    "unknown": b'{"n":1,"more":true}',
    "nan": b'{"n":NaN}',
    "twice": b'{"n":1}{"n":1}',
    "deep": b'{"n":' + b"[" * 30_000,
    "surrogate": b'{"n":1,"error":"\\ud800"}',
    "long": b'{"n":1,"error":"' + b"x" * 100_000 + b'"}',
}
"""Records that are out of protocol."""

FAULTS: dict[str, Fault] = {
    "segfault": Fault(_segfault, ("crash",), "reads address 0"),
    "exit": Fault(_exit, ("crash",), "ends its process: exit:STATUS"),
    "leave_python": Fault(_leave_python, ("exception", "crash"), "raises SystemExit"),
    "hang": Fault(_hang, ("deadline",), "sleeps for ever"),
    "spin": Fault(_spin, ("cpu", "deadline"), "loops for ever"),
    "allocate": Fault(_allocate, ("exception", "memory"), "takes memory: allocate:MEBIBYTES"),
    "recurse": Fault(_recurse, ("exception", "crash"), "calls itself without end"),
    "flood": Fault(_flood, (), "prints: flood:LINES; it answers, and most of it is dropped"),
    "raise": Fault(_raise, ("exception",), "raises an exception: raise:TEXT"),
    "raise_unprintable": Fault(_raise_unprintable, ("exception",), "raises one whose text cannot be had"),
    "kill_at_byte": Fault(_kill_at_byte, ("protocol", "crash"), "ends in its answer: kill_at_byte:COUNT"),
    "wrong_frame": Fault(_wrong_frame, ("protocol",), "a record out of protocol: wrong_frame:KIND"),
    "wrong_answer": Fault(_wrong_answer, ("protocol",), "an answer that it may not give"),
    "answers_without_end": Fault(_answers_without_end, ("protocol", "deadline"), "answers again and again"),
    "close": Fault(_close, ("crash",), "closes its channel and stays"),
    "refused_call": Fault(_refused_call, ("syscall",), "a system call that is death"),
}
"""Name -> fault. An empty `causes`: no failure."""
