"""What does the end of a queue program mean? qmail's exit codes, with IndiMail's additions; pure.

11 to 40 are permanent, all others temporary. What the client is told never says more than a class of
reasons, but where the program wrote a text for it (CUSTOM); the log has the rest.
"""

from __future__ import annotations

import dataclasses
import re
import signal

from forkd.deliver.programs import Fed
from forkd.deliver.transport import Status
from forkd.smtp import replies
from forkd.smtp.reply import Reply

CUSTOM = 88, 82
"""IndiMail's, by descriptor 2; notqmail's, by 6. The program wrote `D` (permanent) or `Z` (temporary), then
words for the client. What stands on 2 with any other status is its own talk, which no client hears."""
_LEAST_CUSTOM = 3
_MOST_CUSTOM = 1023

(_LATER,) = replies.NOT_TAKEN_NOW.lines
(_NEVER,) = replies.NOT_TAKEN.lines
_ENHANCED = re.compile(r"\(#([45]\.\d{1,3}\.\d{1,3})\)", re.ASCII)
"""Where qmail's texts have their status code."""


@dataclasses.dataclass(frozen=True, slots=True)
class Meaning:
    """What became of the message, for all of its recipients."""

    status: Status
    enhanced: str
    text: str
    """For the log and the queue's list."""
    reply: Reply | None = None
    """For a client that waits; None: the mail was taken."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    enhanced: str
    text: str
    told: str = ""
    """Where the client may know more than that the mail is not taken."""


_ROWS: dict[int, _Row] = {
    11: _Row("5.1.3", "an address is too long", "An address is too long"),
    31: _Row("5.3.0", "refused for good"),
    32: _Row("5.7.1", "refused as spam", "This mail looks like spam"),
    33: _Row("5.7.1", "refused: virus", "This mail contains a virus"),
    34: _Row("5.7.1", "refused: banned attachment", "This mail has an attachment that is not accepted"),
    35: _Row("5.3.5", "a signing key is missing"),
    41: _Row("4.3.0", "cannot duplicate descriptors"),
    50: _Row("4.3.0", "no privilege to run the virus scanner"),
    51: _Row("4.3.0", "out of memory"),
    52: _Row("4.3.0", "timeout"),
    53: _Row("4.3.0", "write error or disk full"),
    54: _Row("4.3.0", "read error: message or envelope was incomplete"),
    55: _Row("4.3.0", "cannot read its configuration"),
    56: _Row("4.3.0", "trouble making a network connection"),
    57: _Row("4.3.0", "cannot open a shared object"),
    58: _Row("4.3.0", "cannot resolve a symbol of a shared object"),
    59: _Row("4.3.0", "cannot close a shared object"),
    60: _Row("4.3.0", "cannot make pipes or sockets"),
    61: _Row("4.3.0", "trouble in its home directory"),
    62: _Row("4.3.0", "trouble with files in its queue"),
    63: _Row("4.3.0", "trouble changing to the root directory, or with files in its queue"),
    64: _Row("4.3.0", "trouble syncing the message to disk"),
    65: _Row("4.3.0", "trouble with files in its queue (intd)"),
    66: _Row("4.3.0", "trouble linking files in its queue (todo)"),
    67: _Row("4.3.0", "trouble linking files in its queue (mess)"),
    68: _Row("4.3.0", "trouble with temporary files"),
    69: _Row("4.3.0", "trouble syncing a directory to disk"),
    70: _Row("4.3.0", "trouble with its pid file"),
    71: _Row("4.3.0", "refused for now"),
    72: _Row("4.4.1", "connection to the mail server timed out"),
    73: _Row("4.4.1", "connection to the mail server was rejected"),
    74: _Row("4.4.2", "communication with the mail server failed"),
    75: _Row("4.3.0", "cannot execute a program"),
    76: _Row("4.3.0", "trouble with the spam filter"),
    77: _Row("4.3.0", "cannot run the virus scanner"),
    78: _Row("4.3.0", "cannot find its users and groups"),
    79: _Row("4.3.0", "the envelope's format is wrong"),
    80: _Row("4.3.0", "trouble removing a file in its queue"),
    81: _Row("4.3.0", "internal bug"),
    87: _Row("4.3.5", "the mail system is configured wrongly"),
    91: _Row("4.3.0", "internal bug"),
    120: _Row("4.3.0", "cannot execute the queue program"),
    121: _Row("4.3.0", "cannot fork"),
    122: _Row("4.3.0", "lost a process it waited for"),
    123: _Row("4.3.0", "a process of its own crashed"),
}
_ROWS[115] = _ROWS[11]
"""By an older table."""
_ROWS[82] = _ROWS[120]
"""Without a text: other qmails' for the same."""
_PERMANENT = range(11, 41)


def meaning(fed: Fed) -> Meaning:
    """The outcome for what came of the queue program."""
    ending, said = fed.ending, _printed(fed.said)
    if ending.error:
        return _deferred("4.3.0", f"the queue program could not be started: {ending.error}")
    if ending.late:
        return _deferred("4.3.0", _with("the queue program was killed: it did not end in time", said))
    if ending.status < 0:
        return _deferred("4.3.0", _with(f"the queue program was killed by {_signal(-ending.status)}", said))
    code = ending.status
    if code == 0:
        return _zero(fed, said)
    if code in CUSTOM:
        custom = _custom(code, fed.said if code == CUSTOM[0] else fed.text)
        if custom is not None:
            return custom
    row = _ROWS.get(code)
    permanent = row.enhanced.startswith("5") if row else code in _PERMANENT
    text = f"exit status {code}: {row.text if row else 'permanent' if permanent else 'temporary'}"
    if permanent:
        return _failed(row.enhanced if row else "5.3.0", _with(text, said), (row and row.told) or _NEVER)
    return _deferred(row.enhanced if row else "4.3.0", _with(text, said))


def _zero(fed: Fed, said: str) -> Meaning:
    """Taken, where it can have been. IndiMail's filters before the queue (qmail-multi, qmail-qfilter) drop a
    mail by reading it all, nothing of its envelope, and ending so: that is as their admin wants it."""
    if fed.first != "all":
        return _deferred(
            "4.3.0", _with("exit status 0, but the queue program did not read all of the message", said)
        )
    if fed.second == "part":
        return _deferred(
            "4.3.0", _with("exit status 0, but the queue program did not read all of the envelope", said)
        )
    if fed.second == "nothing":
        return Meaning(
            "delivered",
            "2.0.0",
            _with("dropped by the queue program: it read the message, no envelope", said),
        )
    return Meaning("delivered", "2.0.0", "taken by the queue program")


def _custom(code: int, said: bytes) -> Meaning | None:
    """What that exit status means with that text: the last of its lines counts. None: there is none."""
    lines = [line.strip() for line in _decoded(said[:_MOST_CUSTOM]).split("\n")]
    line = next((line for line in reversed(lines) if line), "")
    if len(said) < _LEAST_CUSTOM or line[:1] not in ("D", "Z") or not line[1:].strip():
        return None
    permanent, told = line[0] == "D", line[1:].strip()
    enhanced = "5.3.0" if permanent else "4.3.0"
    found = _ENHANCED.search(told)
    if found and found[1][0] == enhanced[0]:
        # It stands in front of the text from here on (RFC 2034).
        enhanced, told = found[1], _ENHANCED.sub("", told, count=1).strip() or told
    text = f"exit status {code}: {told}"
    return _failed(enhanced, text, told) if permanent else _deferred(enhanced, text, told)


def _failed(enhanced: str, text: str, told: str) -> Meaning:
    return Meaning("failed", enhanced, text, Reply(554, enhanced, (told,)))


def _deferred(enhanced: str, text: str, told: str = _LATER) -> Meaning:
    return Meaning("deferred", enhanced, text, Reply(451, enhanced, (told,)))


def _with(text: str, said: str) -> str:
    return f"{text}; it said: {said}" if said else text


def _printed(said: bytes) -> str:
    """For one line of the log, which escapes it."""
    return " / ".join(_decoded(said[:500]).split("\n")).strip(" /")


def _decoded(said: bytes) -> str:
    return said.decode("utf-8", "replace").replace("\r", "")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
