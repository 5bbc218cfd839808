"""How does a session go, hook by hook, without a server? The frames are those that forkd sends.

Plugins are asked in their order. Those of a group share a runner, as they share a sandbox, and what the
manifests of all of them want; each other plugin has its own, and is told what those before it did.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from forkd.sdk.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    DeleteHeader,
    Edit,
    Export,
    ReplaceBody,
    RewriteRecipient,
    edit_of,
)
from forkd.sdk.granted import Granted
from forkd.sdk.headers import Headers, missing_end, split_header
from forkd.sdk.plugin import Plugin
from forkd.sdk.replay import apply
from forkd.sdk.runner import Runner
from forkd.sdk.verdicts import Verdict
from forkd.sdk.views import Address

_numbers = itertools.count(1)


class Delivered:
    """A message as it would go on: `headers` and `body` after the edits."""

    __slots__ = ("body", "headers")

    def __init__(self, headers: Headers, body: bytes) -> None:
        self.headers = headers
        self.body = body


class Answer:
    """What a hook said: `verdict` (None: no opinion) and `edits`; at `message` what is `delivered` then.

    Of several plugins: all their edits, and by whom the verdict is.
    """

    __slots__ = ("by", "delivered", "edits", "hook", "verdict")

    def __init__(
        self,
        hook: str,
        verdict: Verdict | None,
        edits: tuple[Edit, ...],
        delivered: Delivered | None = None,
        *,
        by: str = "",
    ) -> None:
        self.hook = hook
        self.verdict = verdict
        self.edits = edits
        self.delivered = delivered
        self.by = by

    def __repr__(self) -> str:
        by = f" by {self.by}" if self.by else ""
        return f"{self.hook} -> {self.verdict}{by}" + "".join(f", {edit}" for edit in self.edits)


class ScriptedSession:
    """One client's session, hook by hook, in the order the test likes. The plugin keeps what it remembers.

    Addresses are written as in mail, `user@example.org`; the null sender is "".
    """

    def __init__(self, asked: Sequence[tuple[Sequence[Plugin], Granted]], facts: Mapping[str, Any]) -> None:
        """Begin a session of a client with these facts, named as in Session.

        asked  groups in their order, each its members in theirs; a plugin alone is a group of one.
        """
        _check_facts(facts)
        session = _FACTS | {"id": f"TEST{next(_numbers)}"} | dict(facts)
        self._groups = [_Group(members, granted, session) for members, granted in asked]
        self._smtputf8: dict[str, bool] = {}
        self._exports: dict[str, str] = dict(facts.get("exports", {}))

    def changes(self, **facts: Any) -> None:
        """Facts have changed: the client has authenticated (user=...), a plugin before has exported."""
        _check_facts(facts)
        for group in self._groups:
            group.news.setdefault("session", {}).update(facts)

    def connect(self) -> Answer:
        """The client has connected."""
        return self._call("connect")

    def helo(self, name: str = "client.example", *, extended: bool = True) -> Answer:
        """EHLO, or HELO with extended=False."""
        self.changes(helo=name, esmtp=extended)
        return self._call("helo", name=name, extended=extended)

    def auth(self, user: str, secret: str) -> Answer:
        """SASL has got a user's name and secret."""
        answer = self._call("auth", user=user, secret=secret)
        if answer.verdict is not None and answer.verdict.do == "ok":
            self.changes(user=user)
        return answer

    def mail(
        self,
        sender: str,
        *,
        parameters: Mapping[str, str | None] | None = None,
        size: int | None = None,
        body: str = "7BIT",
        smtputf8: bool = False,
    ) -> Answer:
        """MAIL FROM; the sender stands in the envelope unless the plugin refuses."""
        by = _mailbox(sender) if sender else None
        self._smtputf8 = {"smtputf8": True} if smtputf8 else {}
        answer = self._call(
            "mail", sender=by, parameters=dict(parameters or {}), size=size, body=body, **self._smtputf8
        )
        if goes_on(answer):
            for group in self._groups:
                group.news["sender"] = by
        return answer

    def rcpt(self, recipient: str, *, parameters: Mapping[str, str | None] | None = None) -> Answer:
        """RCPT TO; it stands in the envelope, rewritten or not, unless the plugin refuses or drops it."""
        to = _mailbox(recipient)
        answer = self._call("rcpt", recipient=to, parameters=dict(parameters or {}), **self._smtputf8)
        if goes_on(answer) and (answer.verdict is None or answer.verdict.do != "discard"):
            for edit in answer.edits:
                if isinstance(edit, RewriteRecipient):
                    to = _mailbox(edit.address)
            for group in self._groups:
                group.news.setdefault("recipients", []).append(to)
        return answer

    def data(self) -> Answer:
        """DATA."""
        return self._call("data", **self._smtputf8)

    def message(self, message: bytes | str, *, edits: Iterable[Edit] = ()) -> Answer:
        """The end of data; LF becomes CRLF, as it came over the wire. The transaction is over after it.

        edits  of plugins before this one; the hook sees the message and the envelope as they left them.
        """
        octets = message.encode() if isinstance(message, str) else message
        octets = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        header = octets[: split_header(octets)]
        body = octets[len(header) :]
        made = list(edits)
        answer = Answer("message", None, ())
        said: list[Edit] = []
        for group in self._groups:
            header, body = _replaced(made, header, body)
            group.news["edits"] = [
                json.loads(edit.json()) for edit in made if not isinstance(edit, ReplaceBody)
            ]
            answer = group.ask("message", header + body, size=len(header + body), header_size=len(header),
                               **self._smtputf8)  # fmt: skip
            self._export(answer.edits)
            said += answer.edits
            made += answer.edits
            if answer.verdict is not None:
                break
        answer = Answer("message", answer.verdict, tuple(said), by=answer.by)
        header, body = _replaced(made, header, body)
        answer.delivered = Delivered(apply(header, made), body)
        self.reset()
        return answer

    def reset(self) -> None:
        """RSET: sender and recipients are forgotten."""
        for group in self._groups:
            for name in ("sender", "recipients", "edits"):
                group.news.pop(name, None)
            group.news["reset"] = True
        self._smtputf8 = {}

    def disconnect(self) -> Answer:
        """The session is over."""
        return self._call("disconnect")

    def deliver(
        self,
        message: bytes | str,
        *,
        sender: str,
        recipients: Iterable[str],
        edits: Iterable[Edit] = (),
    ) -> Answer:
        """A whole transaction; the answer of the first hook that refuses, or of `message`."""
        for ask in (
            lambda: self.mail(sender),
            *(lambda to=to: self.rcpt(to) for to in recipients),
            self.data,
        ):
            answer: Answer = ask()
            if not goes_on(answer):
                return answer
        return self.message(message, edits=edits)

    def _call(self, hook: str, **arguments: Any) -> Answer:
        edits: list[Edit] = []
        for group in self._groups:
            answer = group.ask(hook, **arguments)
            edits += answer.edits
            self._export(answer.edits)
            for edit in answer.edits:
                if isinstance(edit, RewriteRecipient):
                    arguments["recipient"] = _mailbox(edit.address)
            if answer.verdict is not None:
                return Answer(hook, answer.verdict, tuple(edits), by=answer.by)
        return Answer(hook, None, tuple(edits))

    def _export(self, edits: Iterable[Edit]) -> None:
        for edit in edits:
            if isinstance(edit, Export):
                self._exports = {**self._exports, edit.name: edit.value}
                self.changes(exports=self._exports)


class _Group:
    """Plugins that share a sandbox, in one session.

    news  what its next frame tells beside the hook's arguments.
    """

    def __init__(self, members: Sequence[Plugin], granted: Granted, session: Mapping[str, Any]) -> None:
        self._hooks = frozenset(hook for plugin in members for hook in plugin.hooks)
        self._granted = granted
        self._runner = _Raising(members, granted.reads)
        self._name = members[0].name if len(members) == 1 else ""
        self._n = 0
        self.news: dict[str, Any] = {"new": True, "session": dict(session)}

    def ask(self, hook: str, message: bytes | None = None, /, **arguments: Any) -> Answer:
        """Call the hook of all members that have it, and hold the answer against what they may."""
        if hook not in self._hooks:
            return Answer(hook, None, ())
        self._n += 1
        frame = {"n": self._n, "hook": hook, **self.news, "args": arguments}
        self.news = {}
        said = json.loads(self._handle(frame, message))
        assert "error" not in said, f"{hook}: {said['error']}"
        verdict = Verdict(**said["verdict"]) if "verdict" in said else None
        by = said.get("by", self._name) if verdict is not None else ""
        answer = Answer(hook, verdict, tuple(self._edit(edit) for edit in said.get("edits", ())), by=by)
        self._check(answer)
        return answer

    def _handle(self, frame: Mapping[str, Any], message: bytes | None) -> bytes:
        octets = json.dumps(frame).encode()
        if message is None:
            return self._runner.handle(octets)
        fd = os.memfd_create("message")
        try:
            os.write(fd, message)
            return self._runner.handle(octets, fd)
        finally:
            os.close(fd)

    def _edit(self, said: dict[str, Any]) -> Edit:
        if said["op"] != "replace_body":
            return edit_of(said)
        body = b""
        while len(body) < said["size"]:
            self._n += 1
            call = {"n": self._n, "hook": "body", "args": {"offset": len(body)}}
            body += base64.b64decode(json.loads(self._runner.handle(json.dumps(call).encode()))["piece"])
        return ReplaceBody(body)

    def _check(self, answer: Answer) -> None:
        do = "" if answer.verdict is None else answer.verdict.do
        power = _VERDICT_POWERS.get(do)
        if power is not None:
            assert self._granted.covers(power), f"{answer}: [wants.powers] of plugin.toml lacks {power}"
            assert answer.hook in _WHERE.get(do, (answer.hook,)), f"{answer}: {do} is no answer here"
        assert answer.hook != "auth" or do != "accept", f"{answer}: accept is no answer here"
        assert not do or answer.hook != "disconnect", f"{answer}: nobody is there any more"
        for edit in answer.edits:
            power, what = edit.op, ""
            if isinstance(edit, AddHeader | ChangeHeader | DeleteHeader):
                power, what = "edit_headers", edit.name
            elif isinstance(edit, Export):
                what = edit.name
            elif isinstance(edit, AddRecipient):
                what = edit.address.rpartition("@")[2]
            elif isinstance(edit, ReplaceBody):
                power = "edit_body"
            assert self._granted.covers(power, what), (
                f"{answer}: [wants.powers] of plugin.toml lacks {power}{' for ' + what if what else ''}"
            )


class _Raising(Runner):
    """A runner whose hooks' exceptions reach the test."""

    __slots__ = ()

    def _run(self, function: Any, hook: str, args: Any, message_fd: int | None) -> Any:
        try:
            return super()._run(function, hook, args, message_fd)
        except Exception as error:
            raise _HookError(error) from error

    def handle(self, frame: bytes, message_fd: int | None = None) -> bytes:
        try:
            return super().handle(frame, message_fd)
        except _HookError as error:
            raise error.args[0] from None


class _HookError(BaseException):
    """Past the boundary that turns exceptions into answers."""


_FACTS: dict[str, Any] = {
    "client_ip": "192.0.2.1",
    "client_port": 40_000,
    "client_name": "client.example",
    "local_ip": "192.0.2.25",
    "local_port": 25,
    "listener": "default",
    "hostname": "mx.test.local",
    "helo": None,
    "esmtp": False,
    "tls_version": "",
    "tls_cipher": "",
    "client_certificate": "",
    "user": "",
    "proxied": False,
    "xclient": False,
    "exports": {},
}
_WHERE = {
    "discard": ("rcpt", "data", "message"),
    "quarantine": ("data", "message"),
    "ok": ("auth",),
}
"""Verdicts that are no answer elsewhere."""
_VERDICT_POWERS = {"accept": "accept", "discard": "discard", "quarantine": "quarantine", "ok": "auth"}


def _check_facts(facts: Mapping[str, Any]) -> None:
    unknown = facts.keys() - _FACTS.keys() - {"id"}
    if unknown:
        raise TypeError(f"a session has no {', '.join(sorted(unknown))}")


def _replaced(edits: Iterable[Edit], header: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Header and body after a new body, which brings the empty line along where the header has none."""
    for edit in edits:
        if isinstance(edit, ReplaceBody):
            body = edit.body
            header += missing_end(header)
    return header, body


def _mailbox(text: str) -> dict[str, str]:
    address = Address.parse(text)
    return {"local": address.local, "domain": address.domain}


def goes_on(answer: Answer) -> bool:
    """The command is not refused."""
    return answer.verdict is None or answer.verdict.do in ("accept", "discard", "quarantine", "ok")
