"""What do the plugins of one sandbox answer when a test asks them, and may they? In frames, as forkd asks.

Every answer is held against what the manifests want: a verdict or an edit beyond that is an AssertionError.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forkd.sdk.capabilities import Capabilities
from forkd.sdk.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    DeleteHeader,
    Edit,
    Export,
    ReplaceBody,
    edit_of,
)
from forkd.sdk.faults import Failing
from forkd.sdk.granted import Granted
from forkd.sdk.headers import Headers
from forkd.sdk.plugin import Plugin
from forkd.sdk.runner import Runner
from forkd.sdk.verdicts import Verdict

_WHERE = {
    "discard": ("rcpt", "data", "message"),
    "quarantine": ("data", "message"),
    "ok": ("auth",),
}
"""Verdicts that are no answer elsewhere."""
_VERDICT_POWERS = {"accept": "accept", "discard": "discard", "quarantine": "quarantine", "ok": "auth"}


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

    __slots__ = ("by", "delivered", "edits", "failed", "hook", "verdict")

    def __init__(
        self,
        hook: str,
        verdict: Verdict | None,
        edits: tuple[Edit, ...],
        delivered: Delivered | None = None,
        *,
        by: str = "",
        failed: str = "",
    ) -> None:
        self.hook = hook
        self.verdict = verdict
        self.edits = edits
        self.delivered = delivered
        self.by = by
        self.failed = failed
        """The cause, where the plugin failed (with_fault): the verdict is then its admin's on_failure."""

    def __repr__(self) -> str:
        by = f" by {self.by}" if self.by else f" as it failed ({self.failed})" if self.failed else ""
        return f"{self.hook} -> {self.verdict}{by}" + "".join(f", {edit}" for edit in self.edits)


def goes_on(answer: Answer) -> bool:
    """The command is not refused."""
    return answer.verdict is None or answer.verdict.do in ("accept", "discard", "quarantine", "ok")


class Group:
    """Plugins that share a sandbox, in one session.

    news  what its next frame tells beside the hook's arguments.
    """

    def __init__(
        self,
        members: Sequence[Plugin],
        granted: Granted,
        session: Mapping[str, Any],
        capabilities: Capabilities,
        told: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._told = told
        self._hooks = frozenset(hook for plugin in members for hook in plugin.hooks)
        self._granted = granted
        self._runner = _Raising(members, granted.reads, capabilities)
        self._name = members[0].name if len(members) == 1 else ""
        self._n = 0
        self.failing: Failing | None = None
        self.news: dict[str, Any] = {"new": True, "session": dict(session)}

    def ask(self, hook: str, message: bytes | None = None, /, **arguments: Any) -> Answer:
        """Call the hook of all members that have it, and hold the answer against what they may."""
        if hook not in self._hooks:
            return Answer(hook, None, ())
        if self.failing is not None and (failed := self.failing.happens(hook)):
            return Answer(hook, self.failing.verdict(hook), (), failed=failed)
        self._n += 1
        frame = {"n": self._n, "hook": hook, **self.news, "args": arguments}
        self.news = {}
        said = json.loads(self._handle(frame, message))
        assert "error" not in said, f"{hook}: {said['error']}"
        self._told(said)
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
