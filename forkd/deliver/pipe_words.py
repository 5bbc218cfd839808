"""What is a program told of a message? Words of its command line, and variables of its environment.

Whatever stands in an address comes from outside. It replaces a `${field}` within one word, which stays one
argument: nothing splits it, and no shell reads it. What is left to it is to begin with a dash, and to have a
slash in it: a word that would become an option by the one is refused, unless `--` stands before it, and one
that would name another path by the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from forkd.config.pipe_schema import FIELD, OF_RECIPIENT
from forkd.deliver.transport import Target
from forkd.queue.stored import StoredMessage
from forkd.smtp.address import split_address

NO_MORE_OPTIONS: Final = "--"
"""Of getopt(3), and of whoever follows POSIX' guidelines for commands (12.2, 10)."""


_ELSEWHERE: Final = frozenset({".", ".."})


class UnfitError(Exception):
    """An address would be something else to the program than an address; the text says what."""


def of_message(message: StoredMessage, size: int) -> dict[str, str]:
    """Field -> value: what all recipients have in common (config.pipe_schema.OF_MESSAGE).

    size  octets that the program reads.
    """
    envelope = message.envelope
    return {
        "sender": envelope.sender,
        "queue_id": str(message.id),
        "size": str(size),
        "client_ip": envelope.client_ip,
        "client_name": envelope.client_name,
        "helo": envelope.helo,
        "login": envelope.user,
    }


def of_recipient(target: Target) -> dict[str, str]:
    """Field -> value, of one recipient (config.pipe_schema.OF_RECIPIENT)."""
    return {
        "recipient": target.address,
        "user": target.mailbox,
        "detail": target.detail,
        "domain": target.domain,
        "original_recipient": target.original or target.address,
    }


def arguments(
    argv: Sequence[str], message: Mapping[str, str], recipients: Sequence[Mapping[str, str]]
) -> list[str]:
    """The program's arguments: `argv` without the program, its fields replaced.

    A word that has a field of a recipient comes once for each of them. Raises UnfitError.
    """
    words: list[str] = []
    may_begin = False
    for word in argv[1:]:
        names = set(FIELD.findall(word))
        may_begin = may_begin or word == NO_MORE_OPTIONS
        path = "/" in FIELD.sub("", word)
        for fields in recipients if names & set(OF_RECIPIENT) else recipients[:1]:
            values = {**message, **fields}
            told = _replaced(word, values)
            if told.startswith("-") and not word.startswith("-") and not may_begin:
                raise UnfitError(
                    f"{told[:100]!r} begins with a dash: the program could take it for an option"
                )
            if path and any("/" in values[name] or values[name] in _ELSEWHERE for name in names):
                raise UnfitError(f"{told[:100]!r} would be another path than the one that is meant")
            words.append(told)
    return words


def _replaced(word: str, values: Mapping[str, str]) -> str:
    return FIELD.sub(lambda found: values[found[1]], word)


def environment(
    message: StoredMessage, size: int, targets: Sequence[Target], own: Mapping[str, str]
) -> dict[str, str]:
    """Variables beside PATH and LC_ALL (config.pipe_schema.VARIABLES); what is not known is not there.

    Those of qmail-command(8) that speak of one recipient are there where there is but one.
    own  the admin's.
    """
    envelope = message.envelope
    user, host = split_address(envelope.sender) if envelope.sender else ("", "")
    addresses = [target.address for target in targets]
    known = {
        "TCPREMOTEIP": envelope.client_ip,
        "TCPREMOTEHOST": envelope.client_name,
        "TCPREMOTEINFO": envelope.user,
    }
    variables = {
        **own,
        **{name: value for name, value in known.items() if value},
        "SENDER": envelope.sender,
        "QMAILUSER": user,
        "QMAILHOST": host,
        "QMAILRCPTS": "".join(f"{address}\n" for address in addresses),
        "NUMRCPTS": str(len(addresses)),
        "MSGSIZE": str(size),
        # F sender NUL, T recipient NUL ..., NUL (qmail-queue(8)).
        "ENVSIZE": str(sum(len(text.encode()) + 2 for text in (envelope.sender, *addresses)) + 1),
    }
    if len(targets) == 1:
        local, host = split_address(targets[0].address)
        variables |= {"RECIPIENT": targets[0].address, "LOCAL": local, "HOST": host, "EXT": targets[0].detail}
    return variables
