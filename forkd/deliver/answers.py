"""What does a next hop's answer mean for a recipient? An Outcome of the dialogue becomes a Result. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from forkd.deliver.hosts import Hop
from forkd.deliver.opening import NotServed, said
from forkd.deliver.transport import Result, Target
from forkd.smtp.client_events import Outcome
from forkd.smtp.client_mail import Unmet
from forkd.smtp.client_offered import Offered
from forkd.smtp.client_phases import Phase
from forkd.smtp.reply import Reply

_DEFERRED: Final = {421: "4.3.2", 450: "4.2.0", 451: "4.3.0", 452: "4.3.1"}
"""What a code without an enhanced one says (RFC 5321 4.2.3)."""
_FAILED: Final = {552: "5.2.2", 553: "5.1.3"}


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What became of one recipient at one hop."""

    result: Result
    final: bool
    """No other hop is asked: it is delivered, refused for good, or may be delivered."""
    cut: bool = False
    """The connection ended before the server had the message: that says nothing of this recipient."""
    doubt: bool = False
    """It ended, or fell silent, over this message: that may be the message's doing, or the server's own."""
    crowded: bool = False
    """There were too many recipients before it; in the next transaction it may be welcome."""

    def over(self, tls: str) -> Answer:
        """The same, where the server was spoken to under TLS."""
        return dataclasses.replace(self, result=dataclasses.replace(self.result, tls=tls)) if tls else self

    def of(self, target: Target) -> Answer:
        """The same for another recipient."""
        return dataclasses.replace(self, result=dataclasses.replace(self.result, target=target))


def answer(target: Target, outcome: Outcome, hop: Hop, *, offered: Offered, lmtp: bool) -> Answer:
    """What the reply, or the lack of one, means."""
    reply = outcome.reply
    if outcome.status == "delivered":
        assert reply is not None
        return Answer(_delivered(target, reply, hop, offered, lmtp=lmtp), final=True)
    if outcome.status == "permanent":
        assert reply is not None
        enhanced = reply.enhanced or _FAILED.get(reply.code, "5.0.0")
        return Answer(
            Result(target, "failed", enhanced, _text(outcome, reply), reply, host=hop.name), final=True
        )
    if outcome.uncertain:
        text = f"{outcome.why or 'no answer'}, after the whole message had gone: it may come twice"
        return Answer(Result(target, "deferred", "4.4.2", text, host=hop.name), final=True, doubt=True)
    if reply is None:
        text = f"{outcome.why} ({outcome.phase.value})"
        result = Result(target, "deferred", "4.4.2", text, host=hop.name)
        return Answer(result, final=False, cut=True, doubt=True)
    temporary = _temporary(reply)
    crowded = (
        outcome.phase is Phase.RCPT and reply.code in (452, 552) and temporary.enhanced in (None, "4.5.3")
    )
    enhanced = temporary.enhanced or ("4.5.3" if crowded else _DEFERRED.get(reply.code, "4.0.0"))
    shut = reply.code == 421
    result = Result(target, "deferred", enhanced, _text(outcome, reply), temporary, host=hop.name, away=shut)
    return Answer(result, final=False, cut=shut, crowded=crowded)


def _delivered(target: Target, reply: Reply, hop: Hop, offered: Offered, *, lmtp: bool) -> Result:
    """LMTP without DSN is the last step, as Postfix takes it; a server that has learnt DSN reports itself."""
    return Result(
        target,
        "delivered",
        reply.enhanced or "2.0.0",
        said(reply),
        reply,
        host=hop.name,
        relayed=not (offered.dsn or lmtp),
        passed_on=offered.dsn,
    )


def _temporary(reply: Reply) -> Reply:
    """552 to RCPT means 452 where it is about their number (RFC 5321 4.5.3.1.10)."""
    return reply if reply.code < 500 else Reply(452, "4.5.3", reply.lines)


def _text(outcome: Outcome, reply: Reply) -> str:
    return f"{said(reply)} ({outcome.phase.value})"


def cannot(target: Target, missing: Unmet, hop: Hop) -> Answer:
    """The server has not learnt what the message needs: another hop may have. The words are ours, for a
    client that waits; so there is no host that a report would put them into the mouth of."""
    reply = missing.reply
    text = f"{' '.join(reply.lines)} ({hop.name})"
    return Answer(Result(target, "failed", reply.enhanced or "5.0.0", text, reply), final=False)


def not_served(target: Target, why: NotServed) -> Answer:
    """Nobody could be asked at that hop."""
    reply = why.reply if why.reply is not None and why.reply.code < 500 else None
    result = Result(target, "deferred", why.enhanced, why.text, reply, host=why.hop.name, away=True)
    return Answer(result, final=False, cut=True)


def last_word(answers: Sequence[Answer]) -> Result:
    """Of all hops that were asked in vain; there is one at least.

    Temporary unless each has refused for good. What a server said of the recipient tells more than that
    another could not be reached.
    """
    results = [one.result for one in answers]
    said_so = [one.result for one in answers if not one.cut]
    deferred = [one for one in results if one.status == "deferred"]
    if not deferred:
        return results[-1]
    told = [one for one in said_so if one.status == "deferred"]
    if told:
        return told[-1]
    last = deferred[-1]
    # A server that has looked at the message is not away, whatever became of the others.
    return dataclasses.replace(last, away=False) if said_so else last
