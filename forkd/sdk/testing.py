"""How does an author test a plugin in pytest, without a server?

    from forkd.sdk.testing import assert_denied, assert_passed, load_plugin

    def test_spammers_are_refused():
        plugin = load_plugin("plugins/block_senders", settings={"senders": ["spam.example"]})
        session = plugin.session(client_ip="192.0.2.1")
        assert_denied(session.mail("joe@spam.example"), enhanced="5.7.1")
        assert_passed(session.mail("joe@example.org"))

load_plugin() reads plugin.toml, fills in the settings' defaults and calls plugin_init; a session calls the
hooks through the same frames that forkd sends, and holds every answer against the manifest: a verdict or
an edit that the plugin does not ask for is an AssertionError here, as it would be a failure there. An
exception of a hook passes through to the test. What the sandbox forbids is not forbidden here:
`forkd plugin test` will show that.
"""

from __future__ import annotations

import itertools
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from forkd.sdk.headers import split_header
from forkd.sdk.plugin import Plugin, PluginError, check_hooks, load
from forkd.sdk.runner import Runner
from forkd.sdk.verdicts import AddHeader, Verdict

__all__ = [
    "Answer",
    "LoadedPlugin",
    "ScriptedSession",
    "assert_deferred",
    "assert_denied",
    "assert_passed",
    "load_plugin",
]

_numbers = itertools.count(1)


class Answer:
    """What a hook said: `verdict` (None: no opinion) and `edits`."""

    __slots__ = ("edits", "hook", "verdict")

    def __init__(self, hook: str, verdict: Verdict | None, edits: tuple[AddHeader, ...]) -> None:
        self.hook = hook
        self.verdict = verdict
        self.edits = edits

    def __repr__(self) -> str:
        return f"{self.hook} -> {self.verdict}" + "".join(f", {edit}" for edit in self.edits)


class LoadedPlugin:
    """A plugin with its manifest; sessions come from session()."""

    def __init__(self, plugin: Plugin, manifest: Mapping[str, Any]) -> None:
        self.plugin = plugin
        self.manifest = manifest
        self.name: str = manifest["name"]

    def session(self, **facts: Any) -> ScriptedSession:
        """A new session; facts as forkd.sdk.Session names them, e.g. client_ip="192.0.2.1"."""
        return ScriptedSession(self, facts)


def load_plugin(folder: str | os.PathLike[str], *, settings: Mapping[str, Any] | None = None) -> LoadedPlugin:
    """Load a plugin's folder as forkd would.

    settings  what the admin would set; the rest comes from the manifest's defaults.
    Raises    PluginError; whatever the plugin itself raises while it is loaded.
    """
    folder = Path(folder).absolute()
    manifest = tomllib.loads((folder / "plugin.toml").read_text(encoding="utf-8"))
    given = dict(settings or {})
    values: dict[str, Any] = {}
    for name, declared in manifest.get("settings", {}).items():
        if name in given:
            values[name] = given.pop(name)
        elif "default" in declared:
            values[name] = declared["default"]
        else:
            raise PluginError(f"setting {name} has no default: the test must give it")
    if given:
        raise PluginError(f"plugin.toml declares no setting {', '.join(sorted(given))}")
    module = manifest.get("module", f"{manifest['name']}.py")
    plugin = load(folder, module, values)
    check_hooks(plugin, frozenset(manifest["hooks"]))
    return LoadedPlugin(plugin, manifest)


class ScriptedSession:
    """One client's session, hook by hook, in the order the test likes. The plugin keeps what it remembers.

    Addresses are written as in mail, `user@example.org`; the null sender is "".
    """

    def __init__(self, loaded: LoadedPlugin, facts: Mapping[str, Any]) -> None:
        wants = loaded.manifest.get("wants", {})
        self._loaded = loaded
        self._powers = wants.get("powers", {})
        self._news: dict[str, Any] = {"session": _FACTS | {"id": f"TEST{next(_numbers)}"} | dict(facts)}
        unknown = facts.keys() - _FACTS.keys() - {"id"}
        if unknown:
            raise TypeError(f"a session has no {', '.join(sorted(unknown))}")
        self._runner = _Raising(loaded.plugin, wants.get("reads", {}))
        self._n = 0

    def connect(self) -> Answer:
        """The client has connected."""
        return self._call("connect")

    def helo(self, name: str = "client.example", *, extended: bool = True) -> Answer:
        """EHLO, or HELO with extended=False."""
        self._news.setdefault("session", {}).update(helo=name, esmtp=extended)
        return self._call("helo", name=name, extended=extended)

    def mail(
        self,
        sender: str,
        *,
        parameters: Mapping[str, str | None] | None = None,
        size: int | None = None,
        body: str = "7BIT",
    ) -> Answer:
        """MAIL FROM; the sender stands in the envelope unless the plugin refuses."""
        by = _mailbox(sender) if sender else None
        answer = self._call("mail", sender=by, parameters=dict(parameters or {}), size=size, body=body)
        if _goes_on(answer):
            self._news["sender"] = by
        return answer

    def rcpt(self, recipient: str, *, parameters: Mapping[str, str | None] | None = None) -> Answer:
        """RCPT TO; the recipient stands in the envelope unless the plugin refuses or drops it."""
        to = _mailbox(recipient)
        answer = self._call("rcpt", recipient=to, parameters=dict(parameters or {}))
        if _goes_on(answer) and (answer.verdict is None or answer.verdict.do != "discard"):
            self._news.setdefault("recipients", []).append(to)
        return answer

    def data(self) -> Answer:
        """DATA."""
        return self._call("data")

    def message(self, message: bytes | str) -> Answer:
        """The end of data; LF becomes CRLF, as it came over the wire. The transaction is over after it."""
        octets = message.encode() if isinstance(message, str) else message
        octets = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        fd = os.memfd_create("message")
        try:
            os.write(fd, octets)
            answer = self._call("message", fd, size=len(octets), header_size=split_header(octets))
        finally:
            os.close(fd)
        self.reset()
        return answer

    def reset(self) -> None:
        """RSET: sender and recipients are forgotten."""
        self._news.pop("sender", None)
        self._news.pop("recipients", None)
        self._news["reset"] = True

    def disconnect(self) -> Answer:
        """The session is over."""
        return self._call("disconnect")

    def deliver(self, message: bytes | str, *, sender: str, recipients: Iterable[str]) -> Answer:
        """A whole transaction; the answer of the first hook that refuses, or of `message`."""
        for ask in (
            lambda: self.mail(sender),
            *(lambda to=to: self.rcpt(to) for to in recipients),
            self.data,
        ):
            answer: Answer = ask()
            if not _goes_on(answer):
                return answer
        return self.message(message)

    def _call(self, hook: str, fd: int | None = None, /, **arguments: Any) -> Answer:
        if hook not in self._loaded.plugin.hooks:
            return Answer(hook, None, ())
        self._n += 1
        frame = {"n": self._n, "hook": hook, **self._news, "args": arguments}
        self._news = {}
        said = json.loads(self._runner.handle(json.dumps(frame).encode(), fd))
        assert "error" not in said, f"{hook}: {said['error']}"
        verdict = Verdict(**said["verdict"]) if "verdict" in said else None
        edits = tuple(AddHeader(edit["name"], edit["value"]) for edit in said.get("edits", ()))
        answer = Answer(hook, verdict, edits)
        self._check(answer)
        return answer

    def _check(self, answer: Answer) -> None:
        do = "" if answer.verdict is None else answer.verdict.do
        if do in ("accept", "discard"):
            assert self._powers.get(do), f"{answer}: [wants.powers] of plugin.toml lacks {do}"
        assert do != "discard" or answer.hook in ("rcpt", "data", "message"), f"{answer}: nothing to drop yet"
        assert not do or answer.hook != "disconnect", f"{answer}: nobody is there any more"
        assert not answer.edits or answer.hook == "message", f"{answer}: edits belong to the message hook"
        for edit in answer.edits:
            granted = self._powers.get("edit_headers", {"names": ()})["names"]
            assert any(_covers(grant.lower(), edit.name.lower()) for grant in granted), (
                f"{answer}: [wants.powers] of plugin.toml lacks edit_headers for {edit.name}"
            )


def assert_passed(answer: Answer) -> None:
    """The command goes on: no opinion, or accept()."""
    assert _goes_on(answer), f"expected no refusal: {answer}"


def assert_denied(answer: Answer, *, code: int | None = None, enhanced: str | None = None) -> None:
    """Refused for good, with this code and enhanced code where given."""
    _assert_refused("deny", answer, code, enhanced)


def assert_deferred(answer: Answer, *, code: int | None = None, enhanced: str | None = None) -> None:
    """Refused for now."""
    _assert_refused("defer", answer, code, enhanced)


class _Raising(Runner):
    """A runner whose hooks' exceptions reach the test."""

    __slots__ = ("error",)

    def _run(self, hook: str, args: Any, message_fd: int | None) -> Any:
        try:
            return super()._run(hook, args, message_fd)
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
}


def _mailbox(text: str) -> dict[str, str]:
    local, _, domain = text.rpartition("@")
    return {"local": local or domain, "domain": domain.lower() if local else ""}


def _goes_on(answer: Answer) -> bool:
    return answer.verdict is None or answer.verdict.do in ("accept", "discard")


def _covers(grant: str, name: str) -> bool:
    return name.startswith(grant[:-1]) if grant.endswith("*") else name == grant


def _assert_refused(do: str, answer: Answer, code: int | None, enhanced: str | None) -> None:
    verdict = answer.verdict
    assert verdict is not None and verdict.do == do, f"expected {do}: {answer}"
    assert code is None or verdict.code == code, f"expected code {code}: {answer}"
    assert enhanced is None or verdict.enhanced == enhanced, f"expected {enhanced}: {answer}"
