"""What does the text that a compiled plugin leaves in *mesg become? A verdict, whatever the octets are.

qmail-smtpd writes it to the client byte for byte. Here it is taken apart: it is one reply, of one line or
of several with the same code (RFC 5321 4.2.1), and a line end that is missing at its end is no fault. What is
no such reply, what has octets that nobody can print, or a code that does not refuse, becomes a text of ours:
the command is refused all the same, since the plugin said so by its return value.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from collections import namedtuple

MAX_OCTETS = 4096
"""Of a text; one that has no end until there is none."""
MAX_TEXT = 1000
"""Characters that go over (forkd.hooks.checks.MAX_TEXT); what is longer is cut."""

DEFAULT_TEXT = "Refused by a check of this server"


if TYPE_CHECKING:

    class Refusal(NamedTuple):
        """A verdict's fields, as an answer has them (PROTOCOL.md, part 4)."""

        do: str
        code: int
        enhanced: str
        text: str
else:
    Refusal = namedtuple("Refusal", "do code enhanced text")

DEFAULT = Refusal("deny", 550, "5.7.1", DEFAULT_TEXT)
"""Of a plugin that refused and gave no text, or none that can be sent."""


def refusal(text: bytes | None) -> Refusal:
    """What the client is told; None: *mesg was left NULL."""
    if text is None or len(text) >= MAX_OCTETS:
        return DEFAULT
    lines = text.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    code = lines[0][:3]
    if len(code) != 3 or not code.isdigit() or code[:1] not in b"45":
        return DEFAULT
    said = []
    for number, line in enumerate(lines, start=1):
        last = number == len(lines)
        # A space or nothing behind the code ends a reply: what follows would be another one.
        if line[:3] != code or line[3:4] not in ((b" ", b"") if last else (b"-",)):
            return DEFAULT
        said.append(line[4:].replace(b"\t", b" ").strip())
    try:
        joined = b" ".join(filter(None, said)).decode()
    except UnicodeDecodeError:
        return DEFAULT
    if not joined.isprintable():
        return DEFAULT
    return _sorted(int(code), joined)


def _sorted(code: int, text: str) -> Refusal:
    first = code // 100
    enhanced, _, rest = text.partition(" ")
    if _is_enhanced(enhanced, first):
        text = rest.strip()
    else:
        enhanced = f"{first}.7.1"
    text = text[:MAX_TEXT] or DEFAULT_TEXT
    if code == 421:
        return Refusal("disconnect", 421, enhanced, text)
    # Replies of other groups speak of syntax or of nothing (RFC 5321 4.2.1): the class is what counts.
    if code // 10 % 10 not in (2, 3, 5):
        code = 550 if first == 5 else 451
    return Refusal("deny" if first == 5 else "defer", code, enhanced, text)


def _is_enhanced(word: str, first: int) -> bool:
    """5.7.1, of the class that the code has (RFC 3463)."""
    parts = word.split(".")
    return (
        len(parts) == 3
        and parts[0] == str(first)
        and all(1 <= len(part) <= 3 and part.isascii() and part.isdigit() for part in parts)
    )
