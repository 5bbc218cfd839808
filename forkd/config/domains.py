"""How is a domain name written, and in which one form are two of them compared?

Names in other scripts have two forms (RFC 5890 2.3.2): U-labels, which people and SMTPUTF8 write, and
A-labels (xn--…), which DNS knows. Everything here is compared in A-labels and lower case.
"""

from __future__ import annotations

import re
from typing import Final

from forkd.smtp.address import a_labels

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DOMAIN_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
"""RFC 5321 4.1.2 Domain in A-labels, lengths of RFC 1035 2.3.4."""

EVERY_SUBDOMAIN: Final = "*."
"""In front of a name: [domain."*.example.org"], [route."*.example.org"]."""


def server_name(name: str) -> str:
    """The same for a certificate's name, which may begin with `*.` for any one label.

    Raises ValueError as a_labels() does.
    """
    wildcard, rest = ("*.", name[2:]) if name.startswith("*.") else ("", name)
    return wildcard + a_labels(rest)


def is_domain(name: str) -> bool:
    """A domain name in either form."""
    try:
        return DOMAIN_NAME.fullmatch(a_labels(name)) is not None
    except ValueError:
        return False


def domain_slip(name: str) -> str:
    """The name that was probably meant by one that is none, or empty."""
    candidate = name.strip().rstrip(".").removeprefix("@").removeprefix("*.")
    return candidate if candidate != name and is_domain(candidate) else ""
