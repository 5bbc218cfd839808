"""Reports as their readers see them: parsed by Python's email package, which is not ours."""

from __future__ import annotations

import dataclasses
import email
from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

DSN = ("Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code")


@dataclasses.dataclass(frozen=True)
class Seen:
    """One report: its header, the text for people, the fields for programs, what came back."""

    message: EmailMessage
    octets: bytes
    text: str
    about: Mapping[str, str]
    recipients: list[Mapping[str, str]]
    returned: EmailMessage
    """The third part; `whole` says whether it is a message or its header."""

    @property
    def whole(self) -> bool:
        return self.returned.get_content_type() in ("message/rfc822", "message/global")

    @property
    def actions(self) -> dict[str, str]:
        """Final recipient, without its type -> action and status."""
        return {
            fields["Final-Recipient"].partition("; ")[2]: f"{fields['Action']} {fields['Status']}"
            for fields in self.recipients
        }


def read(octets: bytes) -> Seen:
    """A report as it lies in a mailbox. AssertionError for what is none, or not well formed."""
    message = email.message_from_bytes(octets, policy=default.clone(utf8=True))
    assert isinstance(message, EmailMessage)
    assert message.get_content_type() == "multipart/report", message["Subject"]
    assert [part.defects for part in message.walk()] == [[] for _ in message.walk()]
    text, status, returned = message.iter_parts()
    assert isinstance(text, EmailMessage)
    assert isinstance(returned, EmailMessage)
    assert status.get_content_type() == f"message/{message['Content-Type'].params['report-type']}"
    groups = status.get_payload()
    assert isinstance(groups, list)
    about, *recipients = [group for group in groups if isinstance(group, EmailMessage)]
    return Seen(
        message,
        octets,
        " ".join(text.get_content().split()),
        _fields(about),
        [_fields(group) for group in recipients],
        returned,
    )


def reports(mailbox: Path) -> list[Seen]:
    """Those in a Maildir, by name of the file."""
    folder = mailbox / "new"
    return [read(path.read_bytes()) for path in sorted(folder.iterdir())] if folder.is_dir() else []


def _fields(group: EmailMessage) -> dict[str, str]:
    return {name: " ".join(str(value).split()) for name, value in group.items()}
