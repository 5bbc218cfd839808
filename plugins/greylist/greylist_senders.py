"""How does a sender look whose address is another one for each message?

Mailing lists, forwarders and large senders write what changes into the local part: the recipient (VERP), a
time and a hash (SRS, BATV), a serial number. steady() leaves out what changes, so that the next message of
the same sender is known again. Two senders that become one by it are harmless: the client's network and
the recipient still tell them apart.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkd.sdk import Address

_BATV = re.compile(r"(?:ms)?prvs=(?:[0-9a-f]{6,12}=)?(?P<local>[^=/]+)(?:/[0-9a-f]+)?$")
"""draft-levine-smtp-batv: prvs=TAG=user, and prvs=user/TAG as older ones have it; msprvs1 is another."""
_BTV = re.compile(r"(?:btv1|msprvs1)=+[^=]+=+(?P<local>.+)$")
"""Barracuda's btv1==TAG==user, Google's and Amazon's msprvs1=TAG=user."""
_SRS0 = re.compile(r"srs0[=+-][^=]*=[^=]*=(?P<domain>[^=]+)=(?P<local>.+)$")
"""SRS0=HASH=TIME=domain=user."""
_SRS1 = re.compile(r"srs1[=+-][^=]*=(?P<host>[^=]+)=[=+-][^=]*=[^=]*=(?P<domain>[^=]+)=(?P<local>.+)$")
"""SRS1=HASH=first.forwarder==HASH=TIME=domain=user."""
_SIGNS = re.compile(r"([-+=._/])")
_CHANGING = re.compile(r".*[0-9].*|[0-9a-f]{8,}", re.DOTALL)
"""A word with a digit in it: a number, a time, most hashes; and long hexadecimal without one."""

_RUN = re.compile(r"#(?:[-+=._/](?:#|[a-f]{4}(?![a-z])))+")
"""With four letters of a UUID among them that happen to have no digit."""


def steady(sender: Address) -> str:
    """The sender without what changes from message to message, in lower case; "<>" for the null sender."""
    if not sender:
        return "<>"
    return f"{_local(sender.local.lower())}@{sender.domain.lower()}"


def _local(local: str) -> str:
    for form in (_BATV, _BTV):
        if found := form.match(local):
            return _plain(found["local"])
    for form in (_SRS0, _SRS1):
        if found := form.match(local):
            return f"srs={found['domain']}={_plain(found['local'])}"
    return _plain(local)


def _plain(local: str) -> str:
    """Without a detail or a recipient's address in it, words that change as #."""
    base, sign, _ = local.partition("+")
    if sign and base:
        local = f"{base}+#"
    elif "=" in local:
        # VERP without a plus sign: list-bounces-user=example.org. From the word before the = on it is the
        # recipient's; which of the words before that are his nobody can tell, so all but the first go.
        first = re.match(r"[^-+=._/]+", local)
        local = f"{first[0] if first else ''}=#"
    words = _SIGNS.split(local)
    plain = "".join("#" if _CHANGING.fullmatch(word) else word for word in words)
    # A hash is several words where it has signs in it: they count as one.
    return _RUN.sub("#", plain)
