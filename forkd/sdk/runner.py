"""How does a frame become a hook's call, and its return value an answer? The sandbox's inner loop.

forkd/sandbox/PROTOCOL.md describes the frames. This is the hottest Python in forkd: each line
between frame and answer costs every session page faults, so it is straight, imports little and
builds the common answer (no opinion) by hand. What only editing plugins and groups need stands
in functions of its own below, and in forkd.sdk.answers.
"""

from __future__ import annotations

import binascii
from json.decoder import JSONDecoder

from forkd.sdk.address import Address, Recipient, Sender
from forkd.sdk.answers import failure, sort, verdict_json, write
from forkd.sdk.edits import Edit, add_header, edit_of, export
from forkd.sdk.headers import Headers
from forkd.sdk.plugin import ARGUMENTS, Plugin
from forkd.sdk.verdicts import Verdict, deny
from forkd.sdk.views import NEVER_CAME, OVER, Envelope, Message, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from forkd.sdk.capabilities import Capabilities

MAX_PIECE_BYTES = 48_000
"""Of a replaced body in one answer (forkd.rpc.calls has the same number)."""

# JSONDecoder.decode() would do the same with two regular expressions around it.
_parse = JSONDecoder().scan_once  # type: ignore[attr-defined]


class Runner:
    """Serves the calls of one session after the other, in order.

    failed  a hook raised, and the answer said so: what the plugin remembers may be half changed, so
            the worker lets go of the sandbox, and whoever else runs hooks should stop too.
    """

    __slots__ = (
        "_body",
        "_capabilities",
        "_edits",
        "_envelope",
        "_hooks",
        "_notes",
        "_plugins",
        "_reads",
        "_served",
        "_session",
        "failed",
    )

    def __init__(
        self,
        plugins: Plugin | Iterable[Plugin],
        reads: Iterable[str] = (),
        capabilities: Capabilities | None = None,
    ) -> None:
        """Take a plugin, or the members of a group in their order; what follows is all of theirs."""
        self._capabilities = capabilities
        self._plugins = (plugins,) if isinstance(plugins, Plugin) else tuple(plugins)
        self._hooks = self._plugins[0].hooks if len(self._plugins) == 1 else {}
        """Of the only plugin; a group's members are walked through."""
        self._reads = frozenset(reads)
        self._begin()
        self._served = False
        self.failed = False

    def _begin(self) -> None:
        """A session begins: nothing of another one is within reach of its objects."""
        self._envelope = Envelope("envelope" in self._reads)
        self._session = Session(self._envelope, self._capabilities)
        self._notes: list[dict[str, Any]] = [{} for _ in self._plugins]
        self._edits: list[Edit] = []
        """Of this message's header, by the plugins before and by members of the group."""
        self._body: bytes | None = None
        """What a hook put in the place of the message's body."""

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
            if "new" in call:
                if self._served:
                    self._begin()
                self._served = True
            facts = call.get("session")
            if facts is not None:
                session = self._session
                for name in facts:
                    setattr(session, name, facts[name])
            envelope = self._envelope
            if "reset" in call:
                envelope._sender = None
                envelope._recipients = []
                self._edits = []
                self._body = None
            if "sender" in call:
                envelope._sender = _address(call["sender"])
            if "recipients" in call:
                envelope._recipients += map(_address, call["recipients"])
            if "edits" in call:
                for edit in call["edits"]:
                    self._take(edit_of(edit), None)
            hook = call["hook"]
            hooks = self._hooks
            if hook in hooks:
                said = self._run(hooks[hook], hook, call["args"], message_fd)
                if self._session._told is not None:
                    verdict, edits = (None, []) if said is None else sort(said)
                    return self._answer(n, call, verdict, edits)
                if said is None:
                    return b'{"n":%d}' % n
                if type(said) is Verdict:
                    return b'{"n":%d,"verdict":%b}' % (n, verdict_json(said, "smtputf8" in call["args"]))
                verdict, edits = sort(said)
                return self._answer(n, call, verdict, edits)
            if hook == "page":
                return b'{"n":%d}' % n
            if hook == "body":
                return self._piece(n, call["args"]["offset"])
            verdict, edits, by = self._run_members(hook, call["args"], message_fd)
            if verdict is None and not edits and self._session._told is None:
                return b'{"n":%d}' % n
            return self._answer(n, call, verdict, edits, by)
        except Exception as error:  # noqa: BLE001, RUF100 - the call boundary of a plugin
            self.failed = True
            told, self._session._told = self._session._told, None
            return failure(n, error, told)

    def _run(self, function: Any, hook: str, args: Any, message_fd: int | None) -> Any:
        session = self._session
        if hook == "rcpt":
            to = args["recipient"]
            return function(session, Recipient(to["local"], to["domain"], args.get("parameters")))
        if hook == "mail":
            by = args["sender"] or _NULL
            sender = Sender(
                by["local"], by["domain"], args.get("parameters"), args.get("size"), args.get("body", "7BIT")
            )
            if "smtputf8" in args:
                sender.smtputf8 = True
            return function(session, sender)
        if hook == "message":
            message = Message(
                self._reads,
                args["size"],
                args["header_size"],
                NEVER_CAME if message_fd is None else message_fd,
                edits=self._edits,
                body=self._body,
                smtputf8="smtputf8" in args,
            )
            try:
                return function(session, self._envelope, message)
            finally:
                message._fd = OVER
        if hook == "data":
            return function(session, self._envelope)
        if hook == "helo":
            return function(session, args["name"])
        if hook == "auth":
            return function(session, args["user"], args["secret"])
        return function(session)

    # --- what only editing plugins and groups need -----------------------------------------------------

    def _run_members(
        self, hook: str, args: Any, message_fd: int | None
    ) -> tuple[Verdict | None, list[Edit], str]:
        """A group's members in their order, each after the edits before it; the first verdict ends it."""
        edits: list[Edit] = []
        asked = False
        for member, plugin in enumerate(self._plugins):
            function = plugin.hooks.get(hook)
            if function is None:
                continue
            asked = True
            self._session.notes = self._notes[member]
            said = self._run(function, hook, args, message_fd)
            if said is None:
                continue
            verdict, own = sort(said)
            for edit in own:
                self._take(edit, args)
            edits += own
            if verdict is not None:
                return verdict, edits, plugin.name
        if not asked:
            raise KeyError(hook)
        return None, edits, ""

    def _take(self, edit: Any, args: Any) -> None:
        """An edit of a plugin before this one, in the views."""
        envelope = self._envelope
        op = edit.op
        if op in _OF_HEADER:
            self._edits.append(edit)
        elif op == "replace_body":
            self._body = edit.body
        elif op == "export":
            self._session.exports = {**self._session.exports, edit.name: edit.value}
        elif op == "rewrite_recipient":
            to = Address.parse(edit.address)
            args["recipient"] = {"local": to.local, "domain": to.domain}
        elif op == "change_sender":
            envelope._sender = Address.parse(edit.address)
        else:
            meant = Address.parse(edit.address)
            known = [to for to in envelope._recipients if to.same_as(meant)]
            if op == "delete_recipient":
                envelope._recipients = [to for to in envelope._recipients if not to.same_as(meant)]
            elif not known:
                envelope._recipients = [*envelope._recipients, meant]

    def _answer(self, n: int, call: Any, verdict: Verdict | None, edits: list[Edit], by: str = "") -> bytes:
        bodies: list[Any] = [edit for edit in edits if edit.op == "replace_body"]
        if bodies:
            self._body = bodies[-1].body
            edits = [edit for edit in edits if edit.op != "replace_body" or edit is bodies[-1]]
        smtputf8 = "smtputf8" in call["args"]
        told, self._session._told = self._session._told, None
        return write(n, call["hook"], verdict, edits, by=by, smtputf8=smtputf8, told=told)

    def _piece(self, n: int, offset: int) -> bytes:
        """The next octets of the body that this session's last answer spoke of."""
        if self._body is None:
            raise ValueError("no hook has replaced the body")
        piece = self._body[offset : offset + MAX_PIECE_BYTES]
        return b'{"n":%d,"piece":"%b"}' % (n, binascii.b2a_base64(piece, newline=False))


_NULL = {"local": "", "domain": ""}
_OF_HEADER = frozenset({"add_header", "change_header", "delete_header"})


def _address(given: dict[str, str] | None) -> Address:
    return Address(given["local"], given["domain"]) if given else Address("", "")


def warm() -> None:
    """Run every path of handle() often enough that the interpreter has specialised its code.

    Called in the zygote before the first fork: CPython rewrites hot bytecode in place, and what is
    not rewritten before the fork is rewritten, page by page, in every sandbox.
    """
    answers = (None, deny("5.7.1", "warm"), export("WARM", "yes"))
    edits = (None, [add_header("X-Warm", "yes")])
    for turn in range(24):
        hooks = {name: lambda *_args, said=answers[turn % 3]: said for name in ARGUMENTS}
        hooks["message"] = lambda *_args, said=edits[turn % 2]: said
        hooks["disconnect"] = lambda *_args: None
        runner = Runner(Plugin(**hooks), ("envelope", "headers", "body"))
        deny("5.7.1", "warm")
        Headers(b"Received: a\r\n b\r\nSubject: warm\r\n\r\n").get_all("subject")
        for n, (hook, members) in enumerate(_WARM_CALLS.items(), start=1):
            runner.handle(b'{"n":%d,"hook":"%s",%s}' % (n, hook, members))


_WARM_CALLS = {
    b"connect": b'"new":true,"session":{"id":"0","client_ip":"192.0.2.1","helo":null},"args":{}',
    b"helo": b'"session":{"helo":"c","esmtp":true},"args":{"name":"c","extended":true}',
    b"mail": b'"args":{"sender":{"local":"a","domain":"b"},"parameters":{},"size":1,"body":"7BIT"}',
    b"rcpt": b'"sender":null,"args":{"recipient":{"local":"a","domain":"b"},"parameters":{}}',
    b"data": b'"recipients":[{"local":"a","domain":"b"}],"args":{}',
    b"message": b'"args":{"size":1,"header_size":0}',
    b"disconnect": b'"reset":true,"args":{}',
}
