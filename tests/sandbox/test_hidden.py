"""A password that a sandbox was told stands in nothing that becomes of what it prints, logs or raises."""

from __future__ import annotations

import json

import pytest

from forkd.rpc import records
from forkd.rpc.calls import CallFailed
from tests.support.sandboxes import MODES, Stage, mail, stage

SOURCE = """
from forkd.sdk import Plugin, deny

def plugin_init(settings):
    told = []

    def auth(session, user, secret):
        told.append(secret)
        print("login", user, repr(secret), flush=True)
        session.log(f"{user}: {secret}")
        return deny("5.7.8", "no")

    def mail(session, sender):
        session.log(f"remembered: {told}")
        if sender.local == "fail":
            raise KeyError(*told)
        print("x" * 2010 + str(told)[1:-1])
        return None

    return Plugin(auth=auth, mail=mail)
"""
PASSWORD = 'pa\\zz9"w\u00f6rt'


async def login(st: Stage, session: str, *, then: str) -> tuple[list[str], str, str]:
    """What it logged, how it failed, and its last output; after its end."""
    sandbox = await st.host.take("plugin", session)
    arguments = json.dumps({"user": "joe", "secret": PASSWORD}).encode()
    sandbox.hide(arguments)
    answer = await sandbox.call(b'{"n":1,"hook":"auth","args":%s}' % arguments, 1, timeout_s=5.0)
    logged = [*answer.log]
    detail = ""
    try:
        logged += (await mail(sandbox, then, n=2)).log
    except CallFailed as why:
        detail = why.detail
    sandbox.close()
    return logged, detail, sandbox.last_output


@pytest.mark.parametrize("then", ["go_on", "fail"])
def test_what_it_prints_logs_and_raises_has_no_password(then: str):
    """Also where the end of it is all that is kept: it is cut behind the search."""

    async def scenario(st: Stage) -> None:
        logged, detail, last = await login(st, "s", then=then)
        assert logged[0] == f"joe: {records.SECRET}"
        texts = [*logged, detail, last, *(text for text, _ in st.outputs)]
        assert records.SECRET in st.outputs[0][0]
        assert (records.SECRET in detail) == (then == "fail")
        for part in ("pa\\", "zz9", "w\u00f6rt", "\\xf6"):
            assert not [text for text in texts if part in text], part

    with stage(MODES[0]) as st:
        st.start(SOURCE, whole=True)
        st.run(scenario, spare=0)


def test_nor_in_a_later_session_of_the_same_process():
    """limits.reuse: it remembers, and so does what hides it."""

    async def scenario(st: Stage) -> None:
        first = await st.host.take("plugin", "first")
        arguments = json.dumps({"user": "joe", "secret": PASSWORD}).encode()
        first.hide(arguments)
        await first.call(b'{"n":1,"hook":"auth","args":%s}' % arguments, 1, timeout_s=5.0)
        first.release()
        second = await st.host.take("plugin", "second")
        answer = await mail(second, "go_on")
        assert second.pid == first.pid
        second.close()
        assert answer.log == (f"remembered: ['{records.SECRET}']",)
        assert not [text for text, _ in st.outputs if "zz9" in text]

    with stage(MODES[0]) as st:
        st.start(SOURCE, whole=True, reuse=10)
        st.run(scenario, spare=0, reuse=10)


def test_a_sandbox_that_was_told_none_is_not_searched():
    """What it says goes on as it came."""

    async def scenario(st: Stage) -> None:
        sandbox = await st.host.take("plugin", "s")
        answer = await mail(sandbox, "go_on")
        sandbox.close()
        assert answer.log == ("remembered: []",)

    with stage(MODES[0]) as st:
        st.start(SOURCE, whole=True)
        st.run(scenario, spare=0)
