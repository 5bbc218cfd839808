"""How is one hostile plugin tried? In a real sandbox, a control session beside it."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from forkd.rpc.calls import CallFailed
from tests.support.sandboxes import Stage, as_mode, greet, mail, stage, text_of
from tests.support.waiting import wait_for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """One act and how it must fail. `code` defines attack(argument), whose text is the answer.

    says     pattern of the attack's own account of how it failed; it answered and lives.
    fails    cause and pattern of the detail: the call brought no answer, the sandbox is gone.
    status   pattern of the dead sandbox's status as reported; left out: not looked at.
    """

    name: str
    code: str
    says: str = ""
    fails: tuple[str, str] | None = None
    status: str = ""
    timeout_s: float = 5.0
    spec: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    host: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def perform(attack: Attack, mode: str) -> None:
    """Try it as `mode`; every claim of the group's docstring is asserted here."""
    as_mode(mode, lambda: _perform(attack, mode))


def _perform(attack: Attack, mode: str) -> None:
    with stage(mode) as st:
        st.start(attack.code, files=dict(attack.files), **attack.spec)
        before = sorted(path.name for path in st.folder.rglob("*"))

        async def scenario(st: Stage) -> None:
            control = await st.host.take("plugin", "control")
            await greet(control, 1)
            victim = await st.host.take("plugin", "victim")
            act = asyncio.ensure_future(mail(victim, timeout_s=attack.timeout_s))
            await greet(control, 2)
            outcome = (await asyncio.gather(act, return_exceptions=True))[0]
            await greet(control, 3)
            _check(attack, outcome, victim.last_output)
            pid = victim.pid
            victim.close()
            later = await st.host.take("plugin", "later")
            await greet(later, 1)
            await greet(control, 4)
            later.close()
            control.close()
            if attack.status:
                until = asyncio.get_running_loop().time() + 5
                while not (found := [r for r in st.reports if r.session == "victim"]):
                    assert asyncio.get_running_loop().time() < until, "no report on the dead sandbox"
                    await asyncio.sleep(0.01)
                assert re.fullmatch(attack.status, found[0].status), found
                assert not pid or found[0].pid == pid

        st.run(scenario, **attack.host)
        assert sorted(path.name for path in st.folder.rglob("*")) == before, "files left"
        assert wait_for(lambda: st.processes() == [], timeout_s=5)


def _check(attack: Attack, outcome: object, last_output: str) -> None:
    if attack.fails is not None:
        assert isinstance(outcome, CallFailed), outcome
        cause, detail = attack.fails
        assert outcome.cause == cause, (outcome, last_output)
        assert re.search(detail, outcome.detail), (outcome, last_output)
    else:
        assert not isinstance(outcome, BaseException), (outcome, last_output)
        said = text_of(outcome)  # type: ignore[arg-type]
        assert re.fullmatch(attack.says, said), said
