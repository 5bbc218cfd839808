"""What does a line of badmailfrom or badrcptto mean, and is an address listed?

One reading for two: the plugin qmail_lists, which refuses by such lists, and the configuration, which names a
bad line before anything is started. What lines there are stands in the plugin's manual.
"""

from __future__ import annotations

import re

from forkd.sdk.listfile import EntryError, domain_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkd.sdk.address import Address

_WILD = re.compile(r"[*?\[\\]")
_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "lower": "a-z",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\s",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}
"""Of POSIX, between [: and :], as Python's re knows them."""


class List:
    """One list: addresses and domains in a set, patterns in their order."""

    def __init__(self, *, regex: bool) -> None:
        self.regex = regex
        self.exact: set[str] = set()
        self.patterns: list[tuple[bool, re.Pattern[str]]] = []
        """Whether a match means "listed", and of what."""

    def add(self, line: str) -> None:
        """Take one line. Raises EntryError."""
        positive = not line.startswith("!")
        text = line if positive else line[1:]
        if not text:
            raise EntryError("! and nothing behind it")
        if self.regex:
            self.patterns.append((positive, _expression(text)))
        elif not positive or _WILD.search(text):
            self.patterns.append((positive, _wildcard(text)))
        else:
            self.add_key(text)

    def add_key(self, text: str) -> None:
        """Take an address or @domain. Raises EntryError."""
        if any(c.isspace() for c in text):
            raise EntryError("one address a line, without spaces")
        local, at, domain = text.lower().rpartition("@")
        if not at:
            raise EntryError(f"no @: write @{text} for a domain, or the whole address")
        self.exact.add(f"{local}@{domain_name(domain)}")

    def has(self, address: Address) -> bool:
        """Is this address listed?"""
        domain = address.domain.lower().rstrip(".")
        whole = f"{address.local.lower()}@{domain}" if domain else address.local.lower()
        if whole in self.exact or (domain and f"@{domain}" in self.exact):
            return True
        if self.regex:
            return any(bool(pattern.search(whole)) is positive for positive, pattern in self.patterns)
        listed = False
        for positive, pattern in self.patterns:
            if listed is not positive and pattern.fullmatch(whole):
                listed = positive
        return listed


def _wildcard(text: str) -> re.Pattern[str]:
    r"""Of the shell: * ? [a-z] [^a-z] \x. What stands between two * is looked for once and not again: that
    is as right as trying all places, and cannot take for ever. Raises EntryError."""
    parts, at = [""], 0
    while at < len(text):
        sign = text[at]
        at += 1
        if sign == "*":
            parts.append("")
        elif sign == "?":
            parts[-1] += "."
        elif sign == "[":
            end = text.find("]", at + 1 + text.startswith("^", at))
            if end < 0:
                raise EntryError("[ without its ]")
            parts[-1] += f"[{text[at:end].replace(chr(92), chr(92) * 2).replace('[', chr(92) + '[')}]"
            at = end + 1
        else:
            if sign == "\\" and at < len(text):
                sign, at = text[at], at + 1
            parts[-1] += re.escape(sign)
    head, *middle = parts
    tail = middle.pop() if middle else None
    return _compiled(
        head + "".join(f"(?>.*?{part})" for part in middle) + ("" if tail is None else f".*{tail}")
    )


def _expression(text: str) -> re.Pattern[str]:
    """POSIX extended. Raises EntryError."""
    for name, signs in _CLASSES.items():
        text = text.replace(f"[:{name}:]", signs)
    return _compiled(f".*{text}" if text.startswith("@") else text)


def _compiled(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE | re.DOTALL)
    except re.error as why:
        raise EntryError(f"no pattern: {why}") from None
