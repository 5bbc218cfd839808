"""What do a server's replies mean for each recipient of one transaction? (RFC 5321 4.2.1, RFC 2033 4.2)"""

from __future__ import annotations

from forkd.smtp.client_events import Outcome, Status
from forkd.smtp.client_mail import OutgoingMail
from forkd.smtp.client_phases import Phase
from forkd.smtp.reply import Reply


class Transaction:
    """One mail under way. A recipient's first decision stands."""

    __slots__ = ("_outcomes", "accepted", "chunked", "ended", "mail", "sender_accepted")

    def __init__(self, mail: OutgoingMail, *, chunked: bool) -> None:
        self.mail = mail
        self.chunked = chunked
        """It goes by BDAT."""
        self.sender_accepted = False
        self.accepted: list[int] = []
        """Recipients that the server took, in the order of their replies."""
        self.ended = False
        """The end of the message was written."""
        self._outcomes: list[Outcome | None] = [None] * len(mail.recipients)

    def decide(self, index: int, phase: Phase, reply: Reply) -> None:
        """This reply is the last word for one recipient."""
        if self._outcomes[index] is None:
            self._outcomes[index] = Outcome(_status(phase, reply), phase, reply)

    def decide_all(
        self, phase: Phase, reply: Reply | None, *, why: str = "", uncertain: bool = False
    ) -> None:
        """And for all that are undecided; without a reply they have to be tried again."""
        status = "temporary" if reply is None or uncertain else _status(phase, reply)
        outcome = Outcome(status, phase, reply, why, uncertain)
        self._outcomes = [outcome if one is None else one for one in self._outcomes]

    def refuse_together(self) -> None:
        """Where the server refused some recipients, nobody gets the message: what it said is for all."""
        refused = [one for one in self._outcomes if one is not None]
        if not refused or not self.accepted:
            return
        first = next((one for one in refused if one.status == "temporary"), refused[0])
        self.accepted.clear()
        why = "another recipient was refused"
        self._outcomes = [
            Outcome(first.status, first.phase, first.reply, why) if one is None else one
            for one in self._outcomes
        ]

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """All of them; not before each is decided."""
        found = tuple(one for one in self._outcomes if one is not None)
        assert len(found) == len(self._outcomes)
        return found


def _status(phase: Phase, reply: Reply) -> Status:
    if reply.ok:
        return "delivered"
    if reply.code < 500:
        return "temporary"
    # 552 was "too many recipients" once, and is to be read as 452 (RFC 5321 4.5.3.1.10), but where it says
    # that it is a full mailbox or a size.
    if phase is Phase.RCPT and reply.code == 552 and reply.enhanced in (None, "5.5.3"):
        return "temporary"
    return "permanent"
