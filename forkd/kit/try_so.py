"""What do compiled plugins say to senders and recipients in a real sandbox? For `forkd plugin try-so`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from forkd.config.indimail import data_hook, row_of
from forkd.config.schema import Config, PluginConfig, PluginLimits, Powers
from forkd.config.units import Seconds
from forkd.hooks.breaker import Rule
from forkd.hooks.dispatcher import Decision, Dispatcher, SessionFacts, SessionHooks
from forkd.kit.drive import Meter, Nobody, Unhurried, mailbox
from forkd.kit.stage import Stage
from forkd.kit.watch import Cost, WatchedHost

NAME: Final = "try-so"


@dataclasses.dataclass(frozen=True, slots=True)
class Tried:
    """What is tried: which plugins, and the session that they are shown.

    files        plugins in their order; a folder stands for the row in it.
    reads        files and folders that they may read.
    environment  beside what the session gives.
    """

    files: tuple[Path, ...]
    senders: tuple[str, ...] = ("",)
    recipients: tuple[str, ...] = ()
    remote_ip: str = "192.0.2.1"
    remote_host: str = ""
    user: str = ""
    local_host: str = "mx.test.local"
    symbol: str = "plugin_init"
    base: str = "smtpd-plugin.so"
    reads: tuple[Path, ...] = ()
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    exports: dict[str, str] = dataclasses.field(default_factory=dict)
    relay: bool = False
    timeout_s: float = 5.0
    cpu_s: float = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One function of all the plugins that were asked.

    returned  each plugin's value, in their order: None where it has no such function; the last one that
              was asked has refused, where it is not 0.
    text      as the plugin left it, where it refused.
    reply     what the client gets; empty: the command goes on.
    failure   cause and detail; empty: there was an answer.
    """

    function: str
    argument: str
    returned: tuple[int | None, ...]
    text: str
    reply: str
    cost: Cost
    failure: str = ""
    detail: str = ""
    output: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """All of it. `files`: which they were, in their order; `notes`: what is not as in a daemon."""

    files: tuple[Path, ...]
    calls: tuple[Call, ...]
    printed: str
    notes: tuple[str, ...]

    @property
    def refused(self) -> bool:
        """Something was."""
        return any(call.reply and not call.failure for call in self.calls)

    @property
    def failed(self) -> bool:
        """A plugin crashed, or did not come back."""
        return any(call.failure for call in self.calls)


class Unusable(Exception):  # noqa: N818 - a state of what was given
    """There is nothing to try; the text is for whoever called."""


def files_of(paths: Iterable[Path], base: str) -> tuple[Path, ...]:
    """Each file itself, each folder the row in it. Raises Unusable."""
    found: list[Path] = []
    for path in paths:
        try:
            row = row_of(path, base)[0] if path.is_dir() else [path]
        except OSError as error:
            raise Unusable(f"{path}: {(error.strerror or str(error)).lower()}") from error
        if not row:
            raise Unusable(f"{path} has neither {base} nor a first numbered one in it")
        found += row
    return tuple(file.absolute() for file in found)


async def try_so(tried: Tried, *, data_dir: Path) -> Result:
    """Ask the plugins, in one session: about each sender, its recipients, and the end of data.

    Raises NotStarted when they cannot be loaded, Unusable, and SampleError for an address that is none.
    """
    files = files_of(tried.files, tried.base)
    plugin = configured(tried, files)
    calls: list[Call] = []
    async with Stage(plugin, Config(), data_dir=data_dir, tell=True) as stage:
        meter = Meter()
        dispatcher = Dispatcher(
            [plugin],
            WatchedHost(stage.host, meter),
            routable=lambda _local, _domain: True,
            observer=Nobody(),
            breaker=Rule(window_s=86_400.0, networks=1000),
        )
        facts = SessionFacts(
            id="TRY",
            client_ip=tried.remote_ip,
            client_port=40_000,
            client_name=tried.remote_host,
            local_ip="192.0.2.25",
            local_port=25,
            hostname=tried.local_host,
            user=tried.user,
            relay=tried.relay,
            exports=tried.exports,
        )
        hooks = dispatcher.session(facts, Unhurried())
        try:
            await _Session(hooks, meter, calls).play(tried)
        finally:
            hooks.close()
    return Result(files, tuple(calls), "".join(stage.outputs).strip(), tuple(stage.notes))


class _Session:
    def __init__(self, hooks: SessionHooks, meter: Meter, calls: list[Call]) -> None:
        self._hooks = hooks
        self._meter = meter
        self._calls = calls

    async def play(self, tried: Tried) -> None:
        for text in tried.senders:
            if not await self._transaction(text, tried.recipients):
                return

    async def _transaction(self, text: str, recipients: Sequence[str]) -> bool:
        """One sender, all recipients, and the end; False: the session is over."""
        hooks = self._hooks
        sender = mailbox(text) if text else None
        asked = await self._ask(
            "mail", f"<{text}>", sender=sender, parameters={}, size=None, body="7BIT", smtputf8=False
        )
        if asked.reply is not None:
            return not asked.close
        hooks.begin(sender)
        accepted = 0
        for each in recipients:
            to = mailbox(each)
            asked = await self._ask("rcpt", f"<{each}>", recipient=to, parameters={})
            if asked.close:
                return False
            if asked.reply is None:
                accepted += 1
                hooks.add_recipient(to)
        asked = await self._ask("data", "") if accepted else asked
        hooks.reset()
        return not asked.close

    async def _ask(self, hook: str, argument: str, **arguments: Any) -> Decision:
        self._meter.take()
        decision = await self._hooks.run(hook, **arguments)
        record = decision.records[-1]
        told = record.log[0].split()[1:] if record.log and not record.failure else []
        values = tuple(None if word == "-" else int(word) for word in told)
        reply = "" if decision.reply is None else decision.reply.encode(smtputf8=True).decode().strip()
        self._calls.append(
            Call(
                function=f"{hook}_func",
                argument=argument,
                returned=values,
                text=record.log[1] if len(record.log) > 1 else "",
                reply=reply.replace("\r\n", " / "),
                cost=self._meter.take(),
                failure=record.failure,
                detail=record.detail,
                output=record.output,
            )
        )
        return decision


def configured(tried: Tried, files: tuple[Path, ...]) -> PluginConfig:
    """As an entry would switch them on."""
    return PluginConfig(
        name=NAME,
        version="",
        folder=files[0].parent,
        module=files[0].name,
        kind="indimail",
        code=files,
        environment=tried.environment,
        symbol=tried.symbol,
        data_at="command",
        order=0,
        hooks=("mail", "rcpt", data_hook("command")),
        settings={},
        powers=Powers(),
        reads=("envelope",),
        files=tuple(path.absolute() for path in tried.reads),
        limits=PluginLimits(timeout=Seconds(tried.timeout_s), cpu=Seconds(tried.cpu_s)),
    )
