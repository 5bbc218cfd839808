"""How does mail get to another server? To the MX hosts of each recipient's domain, or to fixed hosts."""

from __future__ import annotations

from forkd.deliver.relaying import Relaying, domain_of
from forkd.deliver.transport import Target
from forkd.smtp.address import a_labels


class Smtp(Relaying):
    """[transport.NAME] kind = "smtp"."""

    def destination(self, target: Target) -> str:
        """The domain whose MX hosts are asked; none where all mail goes to the same ones."""
        if not self._hosts.by_domain:
            return ""
        domain = domain_of(target)
        try:
            return a_labels(domain)
        except ValueError:
            return domain  # no name: deliver() says so
