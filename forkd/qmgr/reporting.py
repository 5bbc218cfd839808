"""Who is told what became of a message, and how does that become mail? Reports, as messages of our own.

What is to be said, and how, is pure (message/report_rules.py, report.py). Here it is given the facts, and
what comes of it is committed to the spool as any mail is, in a slot of its own, before what it tells of is
recorded: a cut between the two gives a report twice, and never none (queue/FORMAT.md).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from forkd import log
from forkd.config.aliases import NO_ALIASES, Aliases
from forkd.config.expansion import AliasedRecipients, Expanded
from forkd.config.recipients import POSTMASTER, NotLocal, Recipients, Unknown
from forkd.config.schema import Config
from forkd.fs import REAL, Fs
from forkd.message import edits, report_rules, trace
from forkd.message.edits import LineEnd
from forkd.message.report import Report, compose
from forkd.message.report_facts import Facts, Piece, without_paths
from forkd.message.report_rules import Due, Fate, Policy, Reach, Standing, Told
from forkd.qmgr.retry import Retry
from forkd.queue.commit import commit
from forkd.queue.envelope import Envelope, Recipient
from forkd.queue.ids import QueueId
from forkd.queue.outcome import Outcome
from forkd.queue.spool import QMGR_SLOT, Spool, SpoolError, SpoolFile
from forkd.queue.stored import StoredMessage
from forkd.smtp.address import split_address


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A message, and all that is known of it after an attempt.

    outcomes  by place in the envelope's recipients; who was never tried is not in it. Deferred ones are told
              where the delay warning is out: nobody is warned twice
    ended     when each was tried last, Unix time
    """

    message: StoredMessage
    outcomes: Mapping[int, Outcome]
    ended: Mapping[int, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Reported:
    """What was said. `told`: whose outcome needs no report any more; `ids`: the reports, to be delivered."""

    told: frozenset[int] = frozenset()
    ids: tuple[QueueId, ...] = ()


NOTHING = Reported()

_REACH: dict[type, Reach] = {NotLocal: "nowhere", Unknown: "nobody"}
"""What the table says of a sender; all else is known."""
_UNREACHED: dict[Reach, str] = {
    "nowhere": "no way leads there (neither a [route] nor queue.relay_transport)",
    "nobody": "there is no such address of ours",
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Letter:
    """One report to be written: to whom, of what."""

    to: str
    sender: str
    told: tuple[Told, ...]
    copy: bool = False
    reach: Reach = "known"


class Reporter:
    """Writes reports. Usable from several threads; one at a time commits.

    root      of the spool
    retry_of  address -> how patient its route is
    aliases   a report to one of these goes to its members, as any mail does when it comes in
    """

    def __init__(
        self,
        config: Config,
        root: str,
        retry_of: Callable[[str], Retry],
        *,
        aliases: Aliases = NO_ALIASES,
        durable: bool = True,
        fs: Fs = REAL,
    ) -> None:
        self._retry_of = retry_of
        self._host = config.server.hostname or "localhost"
        self._most_returned = int(config.reports.max_returned)
        self._policy = Policy(
            postmaster=config.reports.postmaster,
            copies=config.reports.copies,
            own_senders=frozenset({f"mailer-daemon@{self._host}".lower()}),
        )
        self._spool = Spool(Path(root), QMGR_SLOT, durable=durable, fs=fs)
        self._table = Recipients.from_config(config)
        self._recipients = AliasedRecipients(self._table, aliases)
        self._lock = threading.Lock()

    def report(self, case: Case) -> Reported:
        """Say what is due now, and make it durable. Blocks for its syncs.

        Raises SpoolError, OSError: it cannot be written or the message not be read now, and nothing is told;
        Damaged: the message is.
        """
        now = time.time()
        open_ = [index for index, outcome in case.outcomes.items() if not outcome.told]
        letters: list[_Letter] = []
        told: set[int] = set()
        dues = self._dues(case, open_, now)
        for sender, reach, due in dues:
            letters += self._letters(sender, reach, due)
            told.update(one.index for one in (*due.sender, *due.postmaster))
            told.update(due.untold)
            if due.warned:
                told.update(index for index in open_ if case.outcomes[index].status == "deferred")
        # Who did not ask to be told of a success is not told of it later either.
        told.update(index for index in open_ if case.outcomes[index].status == "delivered")
        ids = self._commit(case, letters, now)
        for sender, reach, due in dues:
            self._log_untold(case, sender, reach, due)
        return Reported(frozenset(told), ids)

    # --- who is told what -------------------------------------------------------------------------------

    def _dues(self, case: Case, indexes: Sequence[int], now: float) -> list[tuple[str, Reach, Due]]:
        """By sender: members of a list with an owner have another than the message."""
        envelope = case.message.envelope
        groups: dict[str, list[Standing]] = {}
        for index in indexes:
            recipient, outcome = envelope.recipients[index], case.outcomes[index]
            fate = _fate(recipient, outcome)
            standing = Standing(index, recipient.address, fate, recipient.notify, recipient.original)
            groups.setdefault(recipient.sender or envelope.sender, []).append(standing)
        patience = [
            self._retry_of(standing.address).warn_s
            for standings in groups.values()
            for standing in standings
            if standing.fate == "deferred"
        ]
        # One moment for the message: that of its least patient route.
        policy = dataclasses.replace(self._policy, warn_after_s=min(filter(None, patience), default=0.0))
        age_s = max(0.0, now - envelope.received_at)
        dues = []
        for sender, standings in groups.items():
            reach = self._reach(sender)
            due = report_rules.due(sender, standings, policy=policy, age_s=age_s, reach=reach)
            dues.append((sender, reach, due))
        return dues

    def _reach(self, sender: str) -> Reach:
        if not sender:
            return "known"
        with self._lock:
            found = self._recipients.resolve(*split_address(sender), may_relay=True)
        return _REACH.get(type(found), "known")

    def _letters(self, sender: str, reach: Reach, due: Due) -> list[_Letter]:
        letters = []
        if due.sender:
            letters.append(_Letter(sender, sender, due.sender, reach=reach))
        if due.postmaster:
            letters.append(_Letter(self._policy.postmaster, sender, due.postmaster, copy=True))
        return letters

    def _log_untold(self, case: Case, sender: str, reach: Reach, due: Due) -> None:
        if due.kept_back and not due.untold:
            detail = f"{sender} is told nothing: {_UNREACHED[reach]}"
            log.queue_event(act="untold", id=case.message.id, detail=detail)
        for index in due.untold:
            recipient = case.message.envelope.recipients[index]
            if not sender:
                why = "it has the null sender"
            elif sender.lower() in self._policy.own_senders:
                why = "its sender is the address of our reports"
            elif due.kept_back:
                why = f"its sender is {sender}, and {_UNREACHED[reach]}"
            else:
                why = "its sender wants no report"
            log.queue_event(
                act="untold",
                id=case.message.id,
                detail=f"{recipient.address} failed, and nobody is told: {why}",
                level="warning",
            )

    # --- how it is written ------------------------------------------------------------------------------

    def _commit(self, case: Case, letters: Sequence[_Letter], now: float) -> tuple[QueueId, ...]:
        if not letters:
            return ()
        reports = [self._compose(case, letter, now) for letter in letters]
        with self._lock:
            batch: list[tuple[SpoolFile, Envelope]] = []
            try:
                for report in reports:
                    file = self._spool.begin()
                    batch.append((file, self._envelope(case, report, file.id, now)))
                    file.write(report.octets)
            except SpoolError:
                for file, _ in batch:
                    file.abort()
                raise
            results = commit(self._spool, batch)
        ids = [result for result in results if isinstance(result, str)]
        for result in results:
            if isinstance(result, SpoolError):
                raise result
        for queue_id, letter in zip(ids, letters, strict=True):
            actions = ", ".join(dict.fromkeys(one.action for one in letter.told))
            detail = f"{actions}: told {letter.to} by {queue_id}{' (copy)' if letter.copy else ''}"
            if letter.reach == "known":
                log.queue_event(act="reported", id=case.message.id, detail=detail)
            else:
                detail += f", which waits: {_UNREACHED[letter.reach]}"
                log.queue_event(act="reported", id=case.message.id, detail=detail, level="warning")
        return tuple(ids)

    def _compose(self, case: Case, letter: _Letter, now: float) -> Report:
        message, envelope = case.message, case.message.envelope
        own = letter.sender == envelope.sender
        pieces = tuple([self._piece(case, told) for told in letter.told])
        facts = Facts(
            recipient=letter.to,
            host=self._host,
            report_id=f"{message.id}.{_mark(letter)}",
            queue_id=message.id,
            at=now,
            received_at=envelope.received_at,
            sender=letter.sender,
            pieces=pieces,
            contact=self._contact(letter.sender, *(piece.address for piece in pieces)),
            copy=letter.copy,
            envid=envelope.envid if own else "",
            ret=envelope.ret if own else "",
            smtputf8=envelope.smtputf8,
            client_name=envelope.client_name or envelope.helo,
            most_returned_bytes=self._most_returned,
        )
        return compose(
            facts,
            edits.stream(message.chunks(), envelope.trace, envelope.edits, line_end=LineEnd.CRLF),
        )

    def _piece(self, case: Case, told: Told) -> Piece:
        envelope = case.message.envelope
        recipient, outcome = envelope.recipients[told.index], case.outcomes[told.index]
        retry_until = 0.0
        if told.action == "delayed":
            retry_until = envelope.received_at + self._retry_of(recipient.address).give_up_s
        return Piece(
            address=recipient.original or recipient.address,
            action=told.action,
            status=outcome.enhanced,
            final=recipient.address if recipient.original else "",
            orcpt=recipient.orcpt,
            mta=_mta(outcome.host),
            reply=outcome.reply,
            reason=without_paths(outcome.text),
            last_try_at=case.ended.get(told.index, 0.0),
            retry_until=retry_until,
        )

    def _contact(self, *addresses: str) -> str:
        """Of the postmasters that there are (each domain of ours has one, our host's name perhaps none) the
        one whose business it is: the sender's, a recipient's, any."""
        domains = (split_address(address)[1] for address in addresses)
        first = next(iter(self._table.domains), self._host)
        for domain in itertools.chain(domains, (self._host, first)):
            if domain and self._table.is_ours(domain):
                return f"{POSTMASTER}@{self._table.name_of(domain)}"
        return f"{POSTMASTER}@{self._host}"

    def _envelope(self, case: Case, report: Report, queue_id: QueueId, now: float) -> Envelope:
        """From the null sender. With the lock: for the table of aliases, which remembers what it found."""
        return Envelope(
            session=case.message.envelope.session,
            received_at=now,
            sender="",
            recipients=tuple(self._members(report.recipient)),
            trace=trace.made_here(host=self._host, queue_id=queue_id, at=now),
            body=report.body,
            smtputf8=report.smtputf8,
        )

    def _members(self, address: str) -> Iterator[Recipient]:
        """Nobody hears of what becomes of a report (RFC 3461 6.1)."""
        found = self._recipients.resolve(*split_address(address), may_relay=True)
        if not isinstance(found, Expanded):
            yield Recipient(address=address, notify=("NEVER",))
            return
        for member in found.members.values():
            yield Recipient(address=member.address, notify=("NEVER",), original=address)


def _mark(letter: _Letter) -> str:
    """What tells the reports on a message apart, and is the same in one that a crash doubled: what they say,
    to whom. No two of them say the same."""
    said = ",".join(f"{told.index}{told.action}" for told in letter.told)
    return f"{zlib.crc32(f'{letter.to} {letter.copy} {said}'.encode()):08x}"


def _mta(host: str) -> str:
    """A next hop as RFC 3464 2.1.2 has it; what is on this machine belongs to us, and has no name outside."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "" if host == "localhost" else host
    if address.is_loopback:
        return ""
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"


def _fate(recipient: Recipient, outcome: Outcome) -> Fate:
    if recipient.fate:
        return cast(Fate, recipient.fate)
    if outcome.status == "delivered" and outcome.relayed:
        return "relayed"
    return cast(Fate, outcome.status)
