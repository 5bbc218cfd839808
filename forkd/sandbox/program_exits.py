"""What does a program's exit status mean for the message? As IndiMail's filters use it (qmail-qfilter).

    0          take standard output as the message
    2, 99      accept and drop
    31, 100    refuse: 554
    71, 111    try later: 451
    88         the text on descriptor 2 is the reply: its first octet is D (permanent) or Z (temporary)

But for 2 together with a text on descriptor 2: so a shell ends that could not parse its script or start
what stands in it, and no mail may be lost for that. Who drops on purpose and says why uses 99.

Every other status, and every signal, is the program's failure: on_failure says what becomes of the mail.
"""

from __future__ import annotations

import re
from typing import Final

from forkd.rpc.calls import Verdict

PASS: Final = 0
_DROP_OR_SHELL: Final = 2
CUSTOM: Final = 88
MAX_TEXT: Final = 1000
"""Characters of a reply's text (forkd.hooks.checks.MAX_TEXT); what is longer is cut."""

DROP: Final = Verdict("discard")
REFUSE: Final = Verdict("deny", 554, "5.3.0", "The message was refused by a filter of this server")
LATER: Final = Verdict("defer", 451, "4.3.0", "A filter of this server puts the message off, try again later")

_VERDICTS: Final = {_DROP_OR_SHELL: DROP, 99: DROP, 31: REFUSE, 100: REFUSE, 71: LATER, 111: LATER}
LIKELY: Final = {
    _DROP_OR_SHELL: " together with a complaint: a shell ends so when it could not do its work (99 drops)",
    127: " (127: it could not be started)",
}
"""Failures that admins take for something else: what the log adds."""
_CLASSES: Final = {"D": REFUSE, "Z": LATER}
_FIRST = re.compile(r"([45]\.\d{1,3}\.\d{1,3})(?:\s+(.*))?", re.ASCII | re.DOTALL)
_LAST = re.compile(r"(.*?)\s*\(#([45]\.\d{1,3}\.\d{1,3})\)", re.ASCII | re.DOTALL)
"""Where qmail's programs write the enhanced code."""


def verdict(code: int, text: bytes) -> Verdict | None:
    """What an exit code other than PASS says; None: nothing, the program has failed.

    text  what it wrote to descriptor 2.
    """
    if code == CUSTOM:
        return custom(text)
    if code == _DROP_OR_SHELL and text.strip():
        return None
    return _VERDICTS.get(code)


def custom(text: bytes) -> Verdict:
    """The reply that a program wrote: one line, whatever it has in it. None that says D or Z: try later."""
    said = text.decode("utf-8", "replace")
    usual = _CLASSES.get(said[:1])
    if usual is None:
        return LATER
    line = " ".join(said[1:].split())
    enhanced = usual.enhanced
    if found := _FIRST.fullmatch(line):
        own, line = found.groups()
    elif found := _LAST.fullmatch(line):
        line, own = found.groups()
    else:
        own = enhanced
    if own[0] == enhanced[0]:
        enhanced = own
    line = "".join(c if " " <= c <= "~" else "?" for c in line or "")[:MAX_TEXT]
    return Verdict(usual.do, usual.code, enhanced, line or usual.text)
