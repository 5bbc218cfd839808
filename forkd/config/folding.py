"""When are two local parts the same mailbox?"""

from __future__ import annotations

import unicodedata


def folded(local: str) -> str:
    """A local part as it is compared: without case, and the same however its accents are encoded.

    Upper and lower case are one by our choice (RFC 5321 2.4 leaves it to the host that has the mailbox);
    UTF-8 is casefolded in normalization form C, which is what senders should write (RFC 6532 3.1).
    """
    if local.isascii():
        return local.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).casefold())
