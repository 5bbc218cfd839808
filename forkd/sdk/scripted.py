"""How does a session go, hook by hook, without a server? The frames are those that forkd sends.

Plugins are asked in their order. Those of a group share a runner, as they share a sandbox, and what the
manifests of all of them want; each other plugin has its own, and is told what those before it did.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from forkd.sdk.address import Address
from forkd.sdk.asked import Answer, Delivered, Group, goes_on
from forkd.sdk.edits import Edit, Export, ReplaceBody, RewriteRecipient
from forkd.sdk.fakes import granted_fakes
from forkd.sdk.faults import Failing
from forkd.sdk.granted import Granted
from forkd.sdk.headers import missing_end, split_header
from forkd.sdk.plugin import Plugin
from forkd.sdk.replay import apply

_numbers = itertools.count(1)


class ScriptedSession:
    """One client's session, hook by hook, in the order the test likes. The plugin keeps what it remembers.

    Addresses are written as in mail, `user@example.org`; the null sender is "".
    """

    def __init__(self, asked: Sequence[tuple[Sequence[Plugin], Granted]], facts: Mapping[str, Any]) -> None:
        """Begin a session of a client with these facts, named as in Session.

        asked  groups in their order, each its members in theirs; a plugin alone is a group of one.
        facts  with dns, state and targets among them: what stands in the place of capabilities
               (forkd.sdk.fakes).
        """
        facts = dict(facts)
        fakes = {name: facts.pop(name, None) for name in ("dns", "state", "targets")}
        _check_facts(facts)
        session = _FACTS | {"id": f"TEST{next(_numbers)}"} | facts
        self.logged: list[str] = []
        """What the plugins have logged (session.log)."""
        self.counted: dict[str, int] = {}
        """What they have counted (session.count)."""
        self._groups = [
            Group(members, granted, session, granted_fakes(granted, **fakes), self._told)
            for members, granted in asked
        ]
        self._smtputf8: dict[str, bool] = {}
        self._exports: dict[str, str] = dict(facts.get("exports", {}))

    @property
    def exports(self) -> dict[str, str]:
        """What the plugins have exported so far."""
        return dict(self._exports)

    def changes(self, **facts: Any) -> None:
        """Facts have changed: the client has authenticated (user=...), a plugin before has exported."""
        _check_facts(facts)
        for group in self._groups:
            group.news.setdefault("session", {}).update(facts)

    def with_fault(
        self, cause: str, *, at: str, on_failure: str = "disconnect", plugin: int = 0
    ) -> ScriptedSession:
        """The same session, in which the plugin fails at hook `at` (forkd.sdk.faults has the causes).

        plugin  which one, counted from 0, where several are asked in order.
        """
        self._groups[plugin].failing = Failing(cause, at=at, on_failure=on_failure)
        return self

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
        failed = ""
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
            failed = failed or answer.failed
            if answer.verdict is not None:
                break
        answer = Answer("message", answer.verdict, tuple(said), by=answer.by, failed=failed)
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
        failed = ""
        for group in self._groups:
            answer = group.ask(hook, **arguments)
            edits += answer.edits
            failed = failed or answer.failed
            self._export(answer.edits)
            for edit in answer.edits:
                if isinstance(edit, RewriteRecipient):
                    arguments["recipient"] = _mailbox(edit.address)
            if answer.verdict is not None:
                return Answer(hook, answer.verdict, tuple(edits), by=answer.by, failed=failed)
        return Answer(hook, None, tuple(edits), failed=failed)

    def _told(self, answer: Mapping[str, Any]) -> None:
        self.logged += answer.get("log", ())
        for name, by in answer.get("count", {}).items():
            self.counted[name] = self.counted.get(name, 0) + by

    def _export(self, edits: Iterable[Edit]) -> None:
        for edit in edits:
            if isinstance(edit, Export):
                self._exports = {**self._exports, edit.name: edit.value}
                self.changes(exports=self._exports)


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
    "relay": False,
    "proxied": False,
    "xclient": False,
    "exports": {},
}


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
