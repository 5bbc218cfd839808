"""How does mail get to a mail store? By LMTP, which answers for each recipient (RFC 2033)."""

from __future__ import annotations

from forkd.deliver.relaying import Relaying
from forkd.deliver.transport import Target


class Lmtp(Relaying):
    """[transport.NAME] kind = "lmtp"; made with ClientOptions(lmtp=True)."""

    def destination(self, target: Target) -> str:  # noqa: ARG002 - as AsyncTransport
        """There is but one."""
        return ""
