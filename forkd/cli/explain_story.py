"""How is a story told that admin's trace store has events of? Pure: an answer in, facts, rows and notes out.

The events are those of the log (log.py), each with its fields; explain_words.py has the words for each.
"""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from forkd.cli.explain_words import Fields, count, told

Event = dict[str, Any]

STILL_THERE_S = 10.0
"""A process says every 2 s that it is there (rpc/tracing.py)."""
SETTLED_S = 60.0
"""Behind the last event of a story that seems whole: what is lost later is not of it."""
_OPENING = frozenset({"connect", "helo", "auth", "disconnect"})
"""Hooks that are about the session, not about one of its messages."""
_WHO = ("client", "name", "helo", "listener", "tls", "certificate", "user")
"""Fields of the client, as the log has them and as they are called among the facts."""

_PRINTED = "plugin_output"
MOST_S = 1e9
"""No time of a next try is further away, whoever tells it."""
_OF_SESSION = frozenset({"connected", "session", "auth", "tls_failure"})
_REFUSING = frozenset({"deny", "defer", "disconnect"})
SHOWN = 3
"""Refusals among the facts; the rows have them all."""
LINES = 20
"""Of what a plugin printed: the last ones say what went wrong."""
_LATE = frozenset(
    {"plugin_failure", "plugin_output", "sandbox_end", "shadow", "broker_refusal", "broker_breach"}
)
"""Told beside the session's own events, perhaps after the message that they are about."""


class Story:
    """What is told of one id; `answer` as TraceFile.find gives it.

    events  those that matter: of a message not what happened to others of its session
    """

    def __init__(self, answer: dict[str, Any]) -> None:
        self.id: str = answer["id"]
        self._answer = answer
        self._writers = {writer["n"]: writer for writer in answer["writers"]}
        everything: list[Event] = answer["events"]
        self.is_session = self.id in answer["sessions"]
        self.events = everything if self.is_session else _of_message(everything, self.id)

    # --- for programs ---------------------------------------------------------------------------------

    def data(self) -> dict[str, Any]:
        """One JSON value."""
        return {
            "id": self.id,
            "kind": "session" if self.is_session else "message",
            "sessions": self._answer["sessions"],
            "events": [
                {
                    "at": event["at"],
                    "process": self._process(event),
                    "event": event["event"],
                    "fields": event["fields"],
                }
                for event in self.events
            ],
            "outcome": list(self._outcome()),
            "refusals": list(self._refusals()),
            "notes": self.notes(),
            "gaps": self._answer["gaps"],
            "more": self._answer["more"],
        }

    # --- for eyes -------------------------------------------------------------------------------------

    def facts(self) -> list[tuple[str, object]]:
        """Who and when; what is not known is left out."""
        known: Fields = {}
        for event in self.events:
            if event["event"] == "delivery":
                continue  # its `tls` is the next hop's
            # The later ones know better: TLS, a name, a user came meanwhile.
            known |= {name: value for name, value in event["fields"].items() if name in _WHO and value}
        facts: list[tuple[str, object]] = [("session" if self.is_session else "message", self.id)]
        if not self.is_session:
            facts += [("in session", session) for session in self._answer["sessions"]]
        facts.append(("began", self.date(self.events[0]["at"])))
        facts += [(name, known[name]) for name in _WHO if name in known]
        facts += [("outcome", outcome) for outcome in self._outcome()]
        refused = [f"{each['command']}: {each['reply']}; by {each['by']}" for each in self._refusals()]
        facts += [("refused", text) for text in refused[:SHOWN]]
        return facts + ([("", f"and {len(refused) - SHOWN} more")] if len(refused) > SHOWN else [])

    def rows(self) -> list[tuple[str, str, str]]:
        """When, what, how it went; one row for each event, and one for each line of what a plugin printed."""
        began = self.events[0]["at"]
        printing = {str(each["fields"].get("plugin")) for each in self.events if each["event"] == _PRINTED}
        rows: list[tuple[str, str, str]] = []
        for event in self.events:
            name, fields = event["event"], event["fields"]
            if name == "plugin_failure" and str(fields.get("plugin")) in printing:
                fields = {key: value for key, value in fields.items() if key != "output"}  # it stands there
            lines = str(fields.get("text")).strip().splitlines() if name == _PRINTED else []
            if len(lines) > 1:
                left_out = len(lines) - LINES
                about = f" (the last {LINES} of {len(lines)} lines)" if left_out > 0 else ""
                rows.append(
                    (_since(event["at"] - began), "printed", f"plugin {fields.get('plugin')}:{about}")
                )
                rows += [("", "", f"  {line}") for line in lines[-LINES:]]
            else:
                rows.append((_since(event["at"] - began), *told(name, fields)))
        return rows

    def notes(self) -> list[str]:
        """What the story does not say, and why."""
        said = [self._end()] if self.is_session or self._answer["sessions"] else []
        if said and not any(event["event"] == "connected" for event in self.events):
            said.append("the beginning is not kept any more, or was lost")
        if waiting := self._waiting():
            said.append(f"not over yet: {waiting}; what is in the queue shows `forkd queue list`")
        if self._answer["more"]:
            said.append("there was more than one answer holds; the log has the rest")
        if lost := self.lost():
            said.append(f"{lost}: some of this story may be missing")
        return [note for note in said if note]

    def lost(self) -> str:
        """Events that did not reach the store, since the id was made; empty: none are known to be missing."""
        gaps = [gap for gap in self._answer["gaps"] if gap["after"] <= self._over_at()]
        count = sum(gap["events"] for gap in gaps)
        if not count:
            return ""
        names = ", ".join(sorted({gap["writer"] for gap in gaps}))
        first, last = min(gap["after"] for gap in gaps), max(gap["before"] for gap in gaps)
        events = "1 event" if count == 1 else f"{count} events"
        return f"{events} of {names} between {self.date(first)} and {self.date(last)} did not arrive"

    def _over_at(self) -> float:
        """From when on nothing more is to be expected; never, where that is not known."""
        ended = any(event["event"] == "session" for event in self.events)
        if not ended or "deferred" in self._fates().values():
            return math.inf
        return float(self.events[-1]["at"]) + SETTLED_S

    def _fates(self) -> dict[tuple[str, str], str]:
        """(Queue id, recipient) -> what the last delivery said of it."""
        deliveries = [event["fields"] for event in self.events if event["event"] == "delivery"]
        return {
            (str(said.get("id")), str(said.get("recipient"))): str(said.get("status")) for said in deliveries
        }

    def _waiting(self) -> str:
        """Of recipients that were deferred at last: how many, and when the next of them is tried again."""
        last: dict[tuple[str, str], Event] = {}
        for event in self.events:
            if event["event"] == "queue" and event["fields"].get("act") in ("removed", "bounced"):
                last = {key: said for key, said in last.items() if key[0] != event["fields"].get("id")}
            elif event["event"] == "delivery":
                last[str(event["fields"].get("id")), str(event["fields"].get("recipient"))] = event
        next_tries = [
            event["at"] + event["fields"]["next_try_s"]
            for event in last.values()
            if event["fields"].get("status") == "deferred"
            and isinstance(event["fields"].get("next_try_s"), int | float)
            and 0 <= event["fields"]["next_try_s"] < MOST_S
        ]
        if not next_tries:
            return ""
        return f"{count(len(next_tries), 'recipient')} deferred, next try at {self.date(min(next_tries))}"

    def _refusals(self) -> Iterable[dict[str, str]]:
        """What was refused, with what reply, and by whom: the plugin that was asked before it and refused or
        failed; else forkd itself."""
        by = ""
        for event in self.events:
            name, fields = event["event"], event["fields"]
            if name == "plugin_call" and str(fields.get("verdict")) in _REFUSING:
                failure = (
                    f", which failed at {fields.get('hook')} ({fields['failure']})"
                    if fields.get("failure")
                    else ""
                )
                by = f"plugin {fields.get('plugin')}{failure}"
            elif name == "refused" or (name == "message" and str(fields.get("reply"))[:1] in "45"):
                command = "message" if name == "message" else str(fields.get("command") or "-")
                yield {
                    "command": "greeting" if command == "-" else command,
                    "reply": str(fields.get("reply")),
                    "by": by or "forkd itself",
                }
                by = ""

    def date(self, at: float) -> str:
        """Local time, to the millisecond."""
        return datetime.datetime.fromtimestamp(at).astimezone().isoformat(" ", "milliseconds")

    def _process(self, event: Event) -> str:
        writer = self._writers.get(event["writer"], {})
        return f"{writer['name']}[{writer['pid']}]" if writer else ""

    def _end(self) -> str:
        """Of a session without its last line: why that may be."""
        if any(event["event"] == "session" for event in self.events):
            return ""
        writers = [writer for writer in self._writers.values() if writer["name"].startswith("worker")]
        if not writers:
            return ""
        writer = writers[-1]
        name = f"{writer['name']}[{writer['pid']}]"
        if writer["ended"]:
            return f"the session's end is not known; {name} has ended meanwhile"
        if self._answer["now"] - writer["seen"] > STILL_THERE_S:
            heard = self.date(writer["seen"])
            return f"the session has no end: {name} was killed, it was last heard of at {heard}"
        return "the session has not ended yet"

    def _outcome(self) -> Iterable[str]:
        """In one line: what the client was told at last, and what became of the recipients."""
        fields = [(event["event"], event["fields"]) for event in self.events]
        replies = [said.get("reply") for name, said in fields if name in ("message", "refused")]
        if self.is_session:
            ends = [said for name, said in fields if name == "session"]
            yield from (f"{end.get('reason')}, {count(end.get('messages', 0), 'message')}" for end in ends)
        elif replies and replies[-1]:
            yield str(replies[-1])
        if fates := Counter(self._fates().values()):
            yield ", ".join(f"{number} {status}" for status, number in sorted(fates.items()))


def _of_message(events: Sequence[Event], id_: str) -> list[Event]:
    """Of a session with several messages what is about this one, and what is about the session as such."""
    chosen: list[Event] = []
    pending: list[Event] = []
    """Of the transaction that has not come to its end yet."""
    for event in events:
        name, fields = event["event"], event["fields"]
        if name == "message":
            if fields.get("id") == id_:
                chosen += [*pending, event]
            pending = []
        elif fields.get("id"):
            chosen += [event] if fields["id"] == id_ else []
        elif name in _OF_SESSION or name in _LATE or _opens(name, fields):
            chosen.append(event)
        else:
            pending.append(event)
    return sorted(chosen, key=lambda event: event["at"])


def _opens(name: str, fields: Fields) -> bool:
    """It is about the session, from before its first message."""
    return str(fields.get("hook")) in _OPENING or (
        name == "refused" and fields.get("command") in ("EHLO", "HELO", "AUTH")
    )


def _since(seconds: float) -> str:
    return f"+{max(0.0, seconds):.3f} s" if seconds < 600 else f"+{seconds / 60:.1f} min"
