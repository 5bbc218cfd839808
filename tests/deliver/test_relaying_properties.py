"""Whatever two next hops do, in any order: every recipient has one result, and it is true."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.next_hop import DROP, EHLO, PLAIN, RESET, NextHop, Step, keywords
from tests.support.relaying import a_delivery, a_way, delivered, on_loop

MOMENTS = ("GREETING", "EHLO", "MAIL", "RCPT", "DATA", "BODY", ".", "RSET")
YES = {"GREETING": b"220 mx", "DATA": b"354 go", "BODY": b""}
OFFERS = (EHLO, PLAIN, keywords("PIPELINING", "CHUNKING"), keywords("LIMITS RCPTMAX=2"))
NO: tuple[Step, ...] = (
    b"421 4.3.2 bye",
    b"450 later",
    b"452 4.5.3 many",
    b"550 5.1.1 no",
    b"gibberish",
    DROP,
    RESET,
)
ADDRESSES = tuple(f"u{n}@next.test" for n in range(4))


@st.composite
def scripts(draw: st.DrawFn) -> dict[str, list[Step]]:
    """A server that mostly says yes, and at some moments does not."""
    script: dict[str, list[Step]] = {"EHLO": [draw(st.sampled_from(OFFERS))]}
    for moment in draw(st.lists(st.sampled_from(MOMENTS), max_size=3)):
        yes = script.get(moment, [YES.get(moment, b"250 ok")])[0]
        steps = [draw(st.sampled_from(NO)) if draw(st.booleans()) else yes for _ in range(5)]
        if moment == "BODY":
            # Who refuses a message before its end and takes it at its end cannot be understood.
            steps = [(step, DROP) if isinstance(step, bytes) and step else step for step in steps]
        script[moment] = [*steps, yes]
    return script


@given(scripts(), scripts(), st.integers(1, 4))
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
def test_results_are_true(first: dict[str, list[Step]], second: dict[str, list[Step]], count: int) -> None:
    """Delivered: one server has it, and said so. Failed: no server has it. Who has no certain answer and may
    have it twice is deferred."""

    async def main(folder: Path) -> None:
        async with NextHop(first) as one, NextHop(second) as two:
            way = a_way(one, two)
            for part in "12":
                told = await delivered(way, a_delivery(folder / part, *ADDRESSES[:count]))
                taken = [
                    address for server in (one, two) for mail in server.mails for address in mail.recipients
                ]
                for result in told.results:
                    copies = taken.count(result.target.address)
                    assert copies <= 1, "no recipient has it twice of one try"
                    assert (result.status == "delivered") <= (copies == 1)
                    assert (result.status == "failed") <= (copies == 0)
                    assert (result.status == "deferred") or not result.away
                    assert (
                        result.enhanced[0]
                        == {"delivered": "2", "deferred": "4", "failed": "5"}[result.status]
                    )
                    assert result.text.isprintable()
                    assert result.reply is None or str(result.reply.code)[0] == result.enhanced[0]
                for server in (one, two):
                    for dialogue in server.dialogues:
                        dialogue.mails.clear()
            await way.close()

    with tempfile.TemporaryDirectory(prefix="relay-", dir="/var/tmp") as folder:
        on_loop(main(Path(folder)))
