"""How does a sandbox serve compiled plugins of IndiMail's qmail-smtpd? It loads them when its session begins.

The zygote never has their code in it: it tries them once in a throw-away sandbox, so that what cannot work
stops the start, and forks. Each sandbox sets the environment that its session gives, then loads and
initialises the plugins, as qmail-smtpd does for each connection: their static memory is as fresh as there.
All plugins of one entry share the sandbox, as they share a process there: a crash of one costs the session
that called it, and an admin who wants them apart writes an entry for each.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii as _quoted

from forkd.sandbox import child, indimail_trial, linux
from forkd.sandbox.indimail_abi import Compiled, change_environment, set_environment
from forkd.sandbox.indimail_reply import DEFAULT, MAX_OCTETS, Refusal, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SIGNS = {ord(sign): None for sign in "._-"}
UNKNOWN = "unknown"
"""What qmail-smtpd says of a client's name that it does not know."""

before_walls = indimail_trial.open_report


def load(spec: dict[str, Any], *, control: Any, title: linux.Title) -> child.Forker:
    """Try the plugins, and fork sandboxes that load them. Raises LoadError."""
    session = Session(spec["indimail"])
    for plugin in session.plugins:
        plugin.look()
    forker = child.Forker(spec, session.handle, control=control, title=title)
    indimail_trial.run(spec, session, forker.armour)
    session.warm()
    return forker


class Session:
    """One session's plugins; in the zygote, what every session begins with."""

    def __init__(self, spec: dict[str, Any]) -> None:
        """Take what the specification says of them (ZygoteSpec.compiled)."""
        self._given: dict[str, str] = spec["environment"]
        self._data_hook: str = spec["data_hook"]
        self._tell = bool(spec.get("tell"))
        self.plugins = [Compiled(file, spec["symbol"]) for file in spec["files"]]
        self._loaded = False
        self._facts: dict[str, Any] = {}
        self._sender = b""

    def handle(self, frame: bytes, _message: int | None = None) -> bytes:
        """As Forker's Handle: a frame's answer. What a plugin does beside returning is not caught here."""
        call = json.loads(frame)
        n = call["n"]
        try:
            return self._answer(n, call)
        except Exception as error:  # noqa: BLE001, RUF100 - the call boundary of a plugin
            text = f"{type(error).__name__}: {error}"[:1000].encode("ascii", "backslashreplace").decode()
            return f'{{"n":{n},"error":{_quoted(text)}}}'.encode()

    def _answer(self, n: int, call: dict[str, Any]) -> bytes:
        hook = call["hook"]
        changed = call.get("session")
        if changed is not None:
            self._facts.update(changed)
        if "reset" in call:
            self._sender = b""
        if "sender" in call:
            self._sender = address(call["sender"])
        if hook == "page":
            return b'{"n":%d}' % n
        if not self._loaded or hook == "mail":
            # As qmail-smtpd at each MAIL: what a plugin has put there for an earlier one is gone.
            set_environment(environment(self._facts, self._given))
        elif changed is not None:
            change_environment(dict.fromkeys(_FROM_FACTS) | environment(self._facts, self._given))
        if not self._loaded:
            self._loaded = True
            self.load(lambda _number: None)
        args = call["args"]
        function, arguments = self._asked(hook, args)
        values = []
        for plugin in self.plugins:
            returned, text = plugin.call(function, arguments, MAX_OCTETS)
            values.append(returned)
            if returned:
                said = refusal(text)
                log = [] if said is not DEFAULT else [f"{plugin.name} {function}: {_shown(returned, text)}"]
                if self._tell:
                    log = [_values(function, values), _shown(returned, text)]
                return _refused(n, said, self._by(plugin), log, smtputf8="smtputf8" in args)
        if self._tell:
            return f'{{"n":{n},"log":[{_quoted(_values(function, values))}]}}'.encode()
        return b'{"n":%d}' % n

    def _by(self, plugin: Compiled) -> str:
        """Which of them it was, where there are several and its name can be told."""
        name = plugin.name
        plain = name.isascii() and len(name) <= 64 and name.translate(_SIGNS).isalnum()
        return name if plain and len(self.plugins) > 1 else ""

    def load(self, begin: Callable[[int], object]) -> None:
        """Load and initialise them, in their order; `begin` is told each one's number before.

        Raises LoadError.
        """
        for number, plugin in enumerate(self.plugins):
            begin(number)
            plugin.load()

    def try_all(self, begin: Callable[[int], object]) -> None:
        """The same for a session that there is not. Raises LoadError."""
        set_environment(environment(TRIAL_FACTS, self._given))
        self.load(begin)

    def _asked(self, hook: str, args: dict[str, Any]) -> tuple[str, tuple[bytes | None, ...]]:
        facts = self._facts
        client = octets(facts.get("client_ip") or UNKNOWN)
        if hook == "mail":
            self._sender = address(args["sender"])
            return "mail_func", (client, self._sender)
        if hook == "rcpt":
            return "rcpt_func", (client, self._sender, address(args["recipient"]))
        if hook != self._data_hook:
            raise KeyError(hook)
        user = facts.get("user")
        return "data_func", (
            octets(facts.get("hostname") or UNKNOWN),
            client,
            octets(facts.get("client_name") or UNKNOWN),
            octets(user) if user else None,
        )

    def warm(self) -> None:
        """Run every path of handle() but the plugins' own, as forkd.sdk.runner.warm() does and why."""
        session = Session({"environment": {}, "data_hook": self._data_hook, "symbol": "", "files": ()})
        session.plugins, session._loaded = self.plugins, True
        for plugin in self.plugins:
            plugin.pretend(True)
        for _ in range(24):
            for frame in (
                b'{"n":1,"hook":"mail","session":{"client_ip":"1"},"args":{"sender":{"local":"a","domain":""}}}',
                b'{"n":2,"hook":"rcpt","sender":null,"args":{"recipient":{"local":"a","domain":"b"}}}',
                b'{"n":3,"hook":"%b","reset":true,"args":{}}' % self._data_hook.encode(),
            ):
                session.handle(frame)
            refusal(b"550 5.7.1 warm\r\n")
        for plugin in self.plugins:
            plugin.pretend(False)


def environment(facts: dict[str, Any], given: dict[str, str]) -> dict[str, str]:
    """The environment of a session of these facts; `given`: what the admin adds."""
    user, certificate = facts.get("user"), facts.get("client_certificate")
    known = {name: value for name, fact in _FACTS.items() if (value := facts.get(fact))}
    known = {name: str(value) for name, value in known.items()}
    known.setdefault("TCPREMOTEHOST", UNKNOWN)
    if facts.get("relay"):
        known["RELAYCLIENT"] = ""
    if user or certificate:
        known["AUTHENTICATED"] = "1"
    return dict(facts.get("exports") or {}) | given | known


TRIAL_FACTS = {
    "client_ip": "127.0.0.1",
    "client_name": "localhost",
    "local_ip": "127.0.0.1",
    "local_port": 25,
    "hostname": "localhost",
}
_FACTS = {
    "TCPREMOTEIP": "client_ip",
    "TCPREMOTEHOST": "client_name",
    "TCPREMOTEINFO": "user",
    "TCPLOCALIP": "local_ip",
    "TCPLOCALHOST": "hostname",
    "TCPLOCALPORT": "local_port",
}
_FROM_FACTS = (*_FACTS, "RELAYCLIENT", "AUTHENTICATED")
"""Variables that go away when what they say is not so any more."""


def address(mailbox: dict[str, str] | None) -> bytes:
    """As qmail-smtpd has it: no brackets, quotes and backslashes, in lower case as a whole; empty: nobody."""
    if mailbox is None:
        return b""
    local, domain = mailbox["local"], mailbox["domain"]
    return octets(f"{local}@{domain}" if domain else local).lower()


def octets(text: str) -> bytes:
    """As C takes it: up to a NUL, and there is none in what a session knows."""
    return text.encode("utf-8", "surrogateescape").partition(b"\0")[0]


def _refused(n: int, said: Refusal, by: str, log: list[str], *, smtputf8: bool) -> bytes:
    shown = said.text
    if not smtputf8 and not shown.isascii():
        shown = shown.encode("ascii", "replace").decode("ascii")
    more = f',"by":"{by}"' if by else ""
    if log:
        more += f',"log":[{",".join(map(_quoted, log))}]'
    return (
        f'{{"n":{n},"verdict":{{"do":"{said.do}","code":{said.code},"enhanced":"{said.enhanced}",'
        f'"text":{_quoted(shown)}}}{more}}}'
    ).encode("ascii")


def _shown(returned: int, text: bytes | None) -> str:
    return f"returned {returned}, and its text is {'NULL' if text is None else repr(text[:80])[1:]}"


def _values(function: str, values: list[int | None]) -> str:
    """For the author's kit: what each of them returned, in their order."""
    return " ".join([function, *("-" if value is None else str(value) for value in values)])
