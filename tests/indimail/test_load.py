"""A plugin that crashes in one of ten sessions, at full load: who is hurt? And what does a session cost?"""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from forkd.config.schema import Config, PluginConfig
from forkd.hooks.breaker import Rule
from forkd.hooks.dispatcher import Dispatcher, SessionFacts
from forkd.kit.drive import Nobody, Unhurried
from forkd.kit.stage import Stage
from forkd.kit.try_so import Tried, configured
from forkd.smtp.address import Mailbox
from tests.indimail.compiling import compiled, entry, folder
from tests.support.waiting import wait_for
from tests.system.conftest import Make

SESSIONS, AT_ONCE = 500, 50


@pytest.mark.slow
def test_exactly_the_sessions_that_crash_see_421(make_daemon: Make):
    """500 sessions, 50 at a time: every tenth gets 421, all other mail is answered 250 and arrives once."""
    daemon = make_daemon(plugins={"10-faults.toml": entry(compiled("faults"))})

    def session(number: int) -> tuple[int, int]:
        client = daemon.smtp()
        try:
            client.ehlo()
            code, _ = client.mail(f"{'segv' if number % 10 == 0 else 'fine'}-{number}@c.example")
            if code == 250:
                client.rcpt("load@test.local")
                code, _ = client.data(f"Subject: number {number}\r\n\r\nhello\r\n")
        finally:
            client.close()
        return number, code

    with ThreadPoolExecutor(AT_ONCE) as threads:
        codes = dict(threads.map(session, range(SESSIONS)))
    crashed = {number for number in range(SESSIONS) if number % 10 == 0}
    assert {number for number, code in codes.items() if code == 421} == crashed
    assert {number for number, code in codes.items() if code == 250} == set(range(SESSIONS)) - crashed
    wait_for(lambda: len(daemon.mailbox("load")) >= SESSIONS - len(crashed), timeout_s=60)
    arrived = Counter(
        int(re.search(r"(?m)^Subject: number (\d+)$", file.read_text())[1]) for file in daemon.mailbox("load")
    )
    assert arrived == dict.fromkeys(set(range(SESSIONS)) - crashed, 1)
    assert len(daemon.told("plugin_failure", len(crashed))) == len(crashed)


PYTHON = """
from forkd.sdk import Plugin, deny

def plugin_init(settings):
    def mail(session, sender):
        return deny("5.7.1", "not from you") if sender.local == "permanent" else None
    return Plugin(mail=mail, rcpt=lambda *_: None, data=lambda *_: None)
"""


async def cpu_ms(plugin: PluginConfig, tmp_path: Path, sessions: int) -> float:
    """Processor time of zygote and sandboxes for one session of three calls; without the worker's side."""
    async with Stage(plugin, Config(), data_dir=tmp_path) as stage:
        dispatcher = Dispatcher(
            [plugin],
            stage.host,
            routable=lambda _local, _domain: True,
            observer=Nobody(),
            breaker=Rule(window_s=86_400.0, networks=1000),
        )

        async def one(number: int) -> None:
            facts = SessionFacts(
                id=f"S{number}", client_ip="192.0.2.1", client_port=1, hostname="mx.test.local"
            )
            hooks = dispatcher.session(facts, Unhurried())
            sender, to = Mailbox("fine", "c.example"), Mailbox("a", "test.local")
            await hooks.run("mail", sender=sender, parameters={}, size=None, body="7BIT", smtputf8=False)
            hooks.begin(sender)
            await hooks.run("rcpt", recipient=to, parameters={})
            decision = await hooks.run("data")
            assert decision.reply is None and not any(record.failure for record in decision.records)
            hooks.close()

        def used() -> float:
            # utime, stime, and those of the children it has waited for.
            fields = Path(f"/proc/{stage.pid}/stat").read_text().rpartition(")")[2].split()[11:15]
            return sum(map(int, fields)) / os.sysconf("SC_CLK_TCK")

        for number in range(20):
            await one(number)
        before, ended = used(), len(stage.reports)
        for number in range(sessions):
            await one(number)
        while len(stage.reports) < ended + sessions:
            await asyncio.sleep(0.01)
        return (used() - before) / sessions * 1000


@pytest.mark.slow
def test_a_session_costs_about_what_one_in_python_does(tmp_path: Path):
    """Both are printed; ten times as much would be a loader at work in each call, or a grown zygote."""
    compiled_one = configured(Tried(files=()), (compiled("template"),))
    place = folder() / "plain"
    place.mkdir(exist_ok=True)
    (place / "plain.py").write_text(PYTHON)
    python = PluginConfig(
        name="plain",
        version="1",
        folder=place,
        module="plain.py",
        order=0,
        hooks=("mail", "rcpt", "data"),
        settings={},
        powers=compiled_one.powers,
        reads=("envelope",),
        files=(),
        limits=compiled_one.limits,
    )
    costs = [asyncio.run(cpu_ms(plugin, tmp_path, 400)) for plugin in (compiled_one, python)]
    print(f"CPU per session: compiled {costs[0]:.2f} ms, Python {costs[1]:.2f} ms")
    assert costs[0] < 10 * costs[1]
