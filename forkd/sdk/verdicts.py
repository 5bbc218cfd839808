"""What may a hook say? Verdicts, which end the hook for all plugins; edits are in edits.py.

Wrong values are a ValueError here, where the author's traceback names his line; forkd checks
everything again on its own side, where nothing said by a plugin is believed.
"""

from __future__ import annotations

MAX_TEXT = 1000
"""Characters of a reply's text; longer than one line (512 octets) is wrapped."""
MAX_REASON = 200
"""Characters of a reason to quarantine."""


class Verdict:
    """One plugin's opinion; made by the functions below, never changed."""

    __slots__ = ("code", "do", "enhanced", "text")

    def __init__(self, do: str, code: int = 0, enhanced: str = "", text: str = "") -> None:
        self.do = do
        self.code = code
        self.enhanced = enhanced
        self.text = text

    def __repr__(self) -> str:
        if not self.code:
            return f"{self.do}({self.text!r})" if self.text else f"{self.do}()"
        return f"{self.do}({self.enhanced!r}, {self.text!r}, code={self.code})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verdict) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash((self.do, self.code, self.enhanced, self.text))


def accept() -> Verdict:
    """Let it pass and ask no further plugin at this hook. Needs the power `accept`; not at `auth`.

    forkd's own checks (relay, unknown recipients, limits) hold nevertheless.
    """
    return Verdict("accept")


def deny(enhanced: str, text: str, code: int = 550) -> Verdict:
    """Refuse for good. At `connect` the client gets 554 whatever the code, at `auth` 535.

    enhanced  "5.x.y" (RFC 3463): 5.7.1 for policy, 5.7.26 for failed authentication, 5.6.0 for content.
    text      one line for the sender to read: say what to do about it. What is not ASCII reaches only a
              client that asked for SMTPUTF8; others see "?" in its place.
    code      520..559: the second digit is 2, 3 or 5 (RFC 5321 4.2.1).
    """
    _check("deny", enhanced, text, code)
    return Verdict("deny", code, enhanced, text)


def defer(enhanced: str, text: str, code: int = 451) -> Verdict:
    """Refuse for now: a real mail server comes again within minutes or hours.

    enhanced  "4.x.y"; code 420..459 but not 421, which closes: that is disconnect().
    At `connect` the client gets 421 and the connection closes; at `auth` the code is 454.
    """
    _check("defer", enhanced, text, code)
    return Verdict("defer", code, enhanced, text)


def disconnect(enhanced: str, text: str) -> Verdict:
    """Answer 421 and close the connection; `enhanced` is "4.x.y"."""
    _check("disconnect", enhanced, text, 421)
    return Verdict("disconnect", 421, enhanced, text)


def discard() -> Verdict:
    """Answer as if all were well and drop it: this recipient at `rcpt`, the message at `data` or `message`.

    Needs the power `discard`. The sender believes that the mail arrived: forkd logs it.
    """
    return Verdict("discard")


def quarantine(reason: str) -> Verdict:
    """Take the message, tell the client so, and hold it back until an admin releases or removes it.

    At `data` and `message`. Needs the power `quarantine`.

    reason  for the admin's list of held mail: 1 to 200 printable ASCII characters.
    """
    if not reason or not reason.isascii() or not reason.isprintable() or len(reason) > MAX_REASON:
        raise ValueError(f"quarantine: the reason must be 1 to {MAX_REASON} printable ASCII, not {reason!r}")
    return Verdict("quarantine", 0, "", reason)


def ok() -> Verdict:
    """At `auth`: user and secret are right, the client is who it says. Needs the power `auth`."""
    return Verdict("ok")


def _check(do: str, enhanced: str, text: str, code: int) -> None:
    reply_class = "5" if do == "deny" else "4"
    parts = enhanced.split(".")
    if len(parts) != 3 or parts[0] != reply_class or not all(_number(part) for part in parts[1:]):
        raise ValueError(f"{do}: the enhanced code must be {reply_class}.x.y (RFC 3463), not {enhanced!r}")
    allowed = (421,) if do == "disconnect" else _CODES[reply_class]
    if code not in allowed:
        raise ValueError(f"{do}: code {code} is not allowed here")
    if not text or not text.isprintable() or len(text) > MAX_TEXT:
        raise ValueError(f"{do}: the text has 1 to {MAX_TEXT} characters, best printable ASCII, not {text!r}")


def _number(part: str) -> bool:
    return 1 <= len(part) <= 3 and part.isascii() and part.isdigit()


def _allowed(first: int) -> frozenset[int]:
    tens = (20, 30, 50)
    return frozenset(first + ten + unit for ten in tens for unit in range(10)) - {421}


_CODES = {"4": _allowed(400), "5": _allowed(500)}
