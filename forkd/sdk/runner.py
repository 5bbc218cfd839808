"""How does a frame become a hook's call, and its return value an answer? The sandbox's inner loop.

PROTOCOL.md of forkd.rpc describes the frames. This is the hottest Python in forkd: each line
between frame and answer costs every session page faults, so it is straight, imports little and
builds the common answer (no opinion) by hand.
"""

from __future__ import annotations

import sys
from json.decoder import JSONDecoder
from json.encoder import encode_basestring_ascii as _quoted

from forkd.sdk.headers import Headers
from forkd.sdk.plugin import ARGUMENTS, Plugin
from forkd.sdk.verdicts import AddHeader, Verdict, add_header, deny
from forkd.sdk.views import Address, Envelope, Message, Recipient, Sender, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

MAX_ANSWER_BYTES = 65_536
"""The worker takes no longer record (forkd.rpc.calls.MAX_FRAME_BYTES)."""
MAX_ERROR = 1000
"""Characters of an exception's text that go over; the whole traceback goes to stderr."""

# JSONDecoder.decode() would do the same with two regular expressions around it.
_parse = JSONDecoder().scan_once  # type: ignore[attr-defined]


class Runner:
    """Serves the calls of one session, in order.

    failed  a hook raised, and the answer said so: what the plugin remembers may be half changed, so
            the worker lets go of the sandbox, and whoever else runs hooks should stop too.
    """

    __slots__ = ("_envelope", "_hooks", "_reads", "_session", "failed")

    def __init__(self, plugin: Plugin, reads: Iterable[str] = ()) -> None:
        self._hooks = plugin.hooks
        self._reads = frozenset(reads)
        self._envelope = Envelope("envelope" in self._reads)
        self._session = Session(self._envelope)
        self.failed = False

    def handle(self, frame: bytes, message_fd: int | None = None) -> bytes:
        """Run the hook that a frame asks for; return the answer's bytes. Every frame has one answer.

        message_fd  the message's memory file, for frames of the message hook; the caller closes it.
        Raises      nothing that is an Exception: a hook's exception becomes an answer with `error`.
                    SystemExit and other BaseExceptions of a hook pass through.
        """
        n = 0
        try:
            call = _parse(frame.decode(), 0)[0]
            n = call["n"]
            facts = call.get("session")
            if facts is not None:
                session = self._session
                for name in facts:
                    setattr(session, name, facts[name])
            envelope = self._envelope
            if "reset" in call:
                envelope._sender = None
                envelope._recipients = []
            if "sender" in call:
                envelope._sender = _address(call["sender"])
            if "recipients" in call:
                envelope._recipients += map(_address, call["recipients"])
            hook = call["hook"]
            if hook == "page":
                return b'{"n":%d}' % n
            said = self._run(hook, call.get("args"), message_fd)
            if said is None:
                return b'{"n":%d}' % n
            return _answer(n, said)
        except Exception as error:  # noqa: BLE001, RUF100 - the call boundary of a plugin
            self.failed = True
            return _failure(n, error)

    def _run(self, hook: str, args: Any, message_fd: int | None) -> Any:
        function = self._hooks[hook]
        session = self._session
        if hook == "rcpt":
            to = args["recipient"]
            return function(session, Recipient(to["local"], to["domain"], args.get("parameters")))
        if hook == "mail":
            by = args["sender"] or _NULL
            sender = Sender(
                by["local"], by["domain"], args.get("parameters"), args.get("size"), args.get("body", "7BIT")
            )
            self._envelope._sender = sender
            return function(session, sender)
        if hook == "message":
            added = b"".join(f"{e['name']}: {e['value']}\r\n".encode() for e in args.get("edits", ()))
            fd = -1 if message_fd is None else message_fd
            message = Message(self._reads, args["size"], args["header_size"], fd, added)
            try:
                return function(session, self._envelope, message)
            finally:
                message._fd = -1
        if hook == "data":
            return function(session, self._envelope)
        if hook == "helo":
            return function(session, args["name"])
        return function(session)


_NULL = {"local": "", "domain": ""}


def _address(given: dict[str, str] | None) -> Address:
    return Address(given["local"], given["domain"]) if given else Address("", "")


def _answer(n: int, said: Any) -> bytes:
    verdict: Verdict | None = None
    edits: list[AddHeader] = []
    for one in said if type(said) in (list, tuple) else (said,):
        if isinstance(one, AddHeader):
            edits.append(one)
        elif isinstance(one, Verdict) and verdict is None:
            verdict = one
        else:
            raise TypeError(
                f"a hook returns None, a verdict, or edits with at most one verdict, not {said!r}"
            )
    parts = [f'"n":{n}']
    if verdict is not None:
        do, enhanced, text = _quoted(verdict.do), _quoted(verdict.enhanced), _quoted(verdict.text)
        parts.append(f'"verdict":{{"do":{do},"code":{verdict.code:d},"enhanced":{enhanced},"text":{text}}}')
    if edits:
        fields = (
            f'{{"op":"add_header","name":{_quoted(edit.name)},"value":{_quoted(edit.value)}}}'
            for edit in edits
        )
        parts.append(f'"edits":[{",".join(fields)}]')
    answer = f"{{{','.join(parts)}}}".encode("ascii")
    if len(answer) > MAX_ANSWER_BYTES:
        raise ValueError(f"the answer has {len(answer)} of {MAX_ANSWER_BYTES} bytes: too many edits")
    return answer


def _failure(n: int, error: Exception) -> bytes:
    try:
        # The interpreter's own printer: the traceback module would bring a dozen others with it.
        sys.__excepthook__(type(error), error, error.__traceback__)
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001, RUF100 - an exception whose own text raises, or no memory left
        text = type(error).__name__
    # backslashreplace: a lone surrogate would be no JSON to the worker.
    text = text[:MAX_ERROR].encode("ascii", "backslashreplace").decode("ascii")
    return f'{{"n":{n},"error":{_quoted(text)}}}'.encode("ascii")


def warm() -> None:
    """Run every path of handle() often enough that the interpreter has specialised its code.

    Called in the zygote before the first fork: CPython rewrites hot bytecode in place, and what is
    not rewritten before the fork is rewritten, page by page, in every sandbox.
    """
    answers = (None, deny("5.7.1", "warm"), [AddHeader("X-Warm", "yes")])
    for turn in range(24):
        hooks = {name: lambda *_args, said=answers[turn % 3]: said for name in ARGUMENTS}
        runner = Runner(Plugin(**hooks), ("envelope", "headers", "body"))
        deny("5.7.1", "warm")
        add_header("X-Warm", "yes")
        Headers(b"Received: a\r\n b\r\nSubject: warm\r\n\r\n").get_all("subject")
        for n, (hook, members) in enumerate(_WARM_CALLS.items(), start=1):
            runner.handle(b'{"n":%d,"hook":"%s",%s}' % (n, hook, members))


_WARM_CALLS = {
    b"connect": b'"session":{"id":"0","client_ip":"192.0.2.1","client_port":25,"helo":null},"args":{}',
    b"helo": b'"session":{"helo":"c","esmtp":true},"args":{"name":"c","extended":true}',
    b"mail": b'"args":{"sender":{"local":"a","domain":"b"},"parameters":{},"size":1,"body":"7BIT"}',
    b"rcpt": b'"sender":null,"args":{"recipient":{"local":"a","domain":"b"},"parameters":{}}',
    b"data": b'"recipients":[{"local":"a","domain":"b"}],"args":{}',
    b"message": b'"args":{"size":1,"header_size":0}',
    b"disconnect": b'"reset":true,"args":{}',
}
