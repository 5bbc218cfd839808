"""What may a hook return? Verdicts, which end the hook, and edits of the message.

Wrong values are a ValueError here, where the author's traceback names his line; forkd checks
everything again on its own side, where nothing said by a plugin is believed.
"""

from __future__ import annotations

MAX_TEXT = 1000
"""Characters of a reply's text; longer than one line (512 octets) is wrapped."""
MAX_FIELD_OCTETS = 998
"""A header line without its line end (RFC 5322 2.1.1)."""


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
            return f"{self.do}()"
        return f"{self.do}({self.enhanced!r}, {self.text!r}, code={self.code})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verdict) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash((self.do, self.code, self.enhanced, self.text))


class AddHeader:
    """One header field to be put on top of the message, below forkd's trace and what was added before."""

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value

    def __repr__(self) -> str:
        return f"add_header({self.name!r}, {self.value!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AddHeader) and (self.name, self.value) == (other.name, other.value)

    def __hash__(self) -> int:
        return hash((self.name, self.value))


def accept() -> Verdict:
    """Let it pass and ask no further plugin at this hook. Needs the power `accept`.

    forkd's own checks (relay, unknown recipients, limits) hold nevertheless.
    """
    return Verdict("accept")


def deny(enhanced: str, text: str, code: int = 550) -> Verdict:
    """Refuse for good. At `connect` the client gets 554 whatever the code.

    enhanced  "5.x.y" (RFC 3463): 5.7.1 for policy, 5.7.26 for failed authentication, 5.6.0 for content.
    text      one line of printable ASCII for the sender to read: say what to do about it.
    code      520..559: the second digit is 2, 3 or 5 (RFC 5321 4.2.1).
    """
    _check("deny", enhanced, text, code)
    return Verdict("deny", code, enhanced, text)


def defer(enhanced: str, text: str, code: int = 451) -> Verdict:
    """Refuse for now: a real mail server comes again within minutes or hours.

    enhanced  "4.x.y"; code 420..459 but not 421, which closes: that is disconnect().
    At `connect` the client gets 421 and the connection closes.
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


def add_header(name: str, value: str) -> AddHeader:
    """Add a field to the message: `return [add_header("X-Checked", "yes")]`. Needs the power `edit_headers`.

    value  printable ASCII without line ends; name and value together 996 characters at most.
    """
    if not name or not name.isascii() or not name.isprintable() or set(name) & {" ", ":"}:
        raise ValueError(f"add_header: {name!r} is no header name (printable ASCII, no space, no colon)")
    if not value.isascii() or not value.replace("\t", " ").isprintable():
        raise ValueError(f"add_header {name}: the value must be printable ASCII on one line, not {value!r}")
    if len(name) + 2 + len(value) > MAX_FIELD_OCTETS:
        raise ValueError(f"add_header {name}: a header line has {MAX_FIELD_OCTETS} octets at most")
    return AddHeader(name, value)


def _check(do: str, enhanced: str, text: str, code: int) -> None:
    reply_class = "5" if do == "deny" else "4"
    parts = enhanced.split(".")
    if len(parts) != 3 or parts[0] != reply_class or not all(_number(part) for part in parts[1:]):
        raise ValueError(f"{do}: the enhanced code must be {reply_class}.x.y (RFC 3463), not {enhanced!r}")
    allowed = (421,) if do == "disconnect" else _CODES[reply_class]
    if code not in allowed:
        raise ValueError(f"{do}: code {code} is not allowed here")
    if not text or not text.isascii() or not text.isprintable() or len(text) > MAX_TEXT:
        raise ValueError(f"{do}: the text must be 1 to {MAX_TEXT} printable ASCII characters, not {text!r}")


def _number(part: str) -> bool:
    return 1 <= len(part) <= 3 and part.isascii() and part.isdigit()


def _allowed(first: int) -> frozenset[int]:
    tens = (20, 30, 50)
    return frozenset(first + ten + unit for ten in tens for unit in range(10)) - {421}


_CODES = {"4": _allowed(400), "5": _allowed(500)}
