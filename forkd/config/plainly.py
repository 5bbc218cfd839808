"""What may a plugin do, in words that somebody who never read a manual understands? Powers first.

One table of sentences for all who say it: `plugin show` of what is granted, it and `plugin diff` of
what a manifest wants. Values in, texts out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal

from forkd.config.capabilities import ANY
from forkd.config.schema import Capabilities, Powers

Kind = Literal["power", "reads", "capability", "files"]
KINDS: Final[tuple[Kind, ...]] = ("power", "capability", "reads", "files")
"""What can hurt most comes first."""

SENTENCES: Final[dict[tuple[Kind, str], str]] = {
    ("power", "auth"): "is shown users' passwords, and may say that they are right",
    ("power", "accept"): "may end a hook early, so that later plugins are not asked",
    ("power", "discard"): "may drop mail that was answered 250: nobody is told",
    ("power", "quarantine"): "may hold mail in quarantine",
    ("power", "edit_headers"): "may add, change and delete the header fields {}",
    ("power", "edit_body"): "may replace the body of messages",
    ("power", "replace_message"): "may put another message, header and body, in the place of one",
    ("power", "add_recipient"): "may send copies of mail to recipients in {}",
    ("power", "delete_recipient"): "may take recipients out, who then get nothing",
    (
        "power",
        "rewrite_recipient",
    ): "may put another recipient of ours in the place of the one it is asked about",
    ("power", "change_sender"): "may change the sender: where bounces go",
    ("power", "export"): "may tell later plugins the facts {}",
    ("reads", "envelope"): "reads sender and recipients",
    ("reads", "headers"): "reads the header of messages",
    ("reads", "body"): "reads the body of messages",
    ("capability", "dns"): "may look up names below {}: the name it asks can carry data out",
    ("capability", "state"): "may keep keys and values that outlive a session",
    ("capability", "connect"): "may connect to {}: acts as forkd towards it",
    (
        "capability",
        "threads",
    ): "may run {} more threads for each sandbox, counted together: one session can take those of all",
    ("capability", "processes"): "may have {} more processes in each run, counted together as threads are",
    ("capability", "exec"): "may start the programs {}",
    ("files", "files"): "may read {}",
}
"""Kind and name of a want -> what it means; {} is what it names."""

EVERY: Final = "may refuse mail, put it off, and end the session (as every plugin may)"
_ANY_NAME: Final = "may look up any name: the names it asks can carry data out, to whoever runs their servers"
_EVERY_FILE: Final = "may read every file of this machine that the user it runs as can read (/)"
_ANY_RECIPIENT: Final = "may send copies of mail to any recipient of ours"

FAILURES: Final = {
    "disconnect": "the client gets 421 and the session is closed; it may try again",
    "defer": "the command gets 451 (before the greeting: 421, and the end); the client may try again",
    "skip": "it is left out, as if it had no opinion: mail goes on unchecked by it",
    "deny": "the command gets 550 (before the greeting: 554): mail is refused for good",
}
"""on_failure -> what a client sees when the plugin crashes or is late."""
SHADOW: Final = (
    "it is only watched (shadow): what it says is logged and never obeyed, and nobody waits for it"
)


@dataclasses.dataclass(frozen=True, slots=True)
class May:
    """One thing that a plugin may do. `reason` is its author's, where there is one."""

    kind: Kind
    name: str
    text: str
    reason: str = ""


def sentence(kind: Kind, name: str, items: Iterable[str] = ()) -> str:
    """What one want or grant means; `items` are what it names."""
    named = list(items)
    if (kind, name) == ("capability", "dns") and ANY in named:
        return _ANY_NAME
    if (kind, name) == ("power", "add_recipient") and "*" in named:
        return _ANY_RECIPIENT
    return SENTENCES[kind, name].format(
        " and ".join([", ".join(named[:-1]), named[-1]] if named[1:] else named)
    )


def powers(granted: Powers, reasons: Mapping[str, str]) -> list[May]:
    """Over mail, the gravest first."""
    found = []
    for kind, name in SENTENCES:
        value = getattr(granted, name) if kind == "power" else None
        if value:
            items = () if value is True else value
            found.append(May("power", name, sentence("power", name, items), reasons.get(name, "")))
    return found


def capabilities(granted: Capabilities, reasons: Mapping[str, str]) -> list[May]:
    """Of the world beside the mail; each target by itself."""
    items: list[tuple[str, tuple[str, ...]]] = [("dns", granted.dns)] if granted.dns else []
    items += [("connect", (f"{name} at {where}",)) for name, where in granted.connect.items()]
    items += [("state", ())] if granted.state else []
    items += [("threads", (str(granted.threads),))] if granted.threads else []
    items += [("processes", (str(granted.processes),))] if granted.processes else []
    items += [("exec", tuple(map(str, granted.exec)))] if granted.exec else []
    return [
        May("capability", name, sentence("capability", name, named), reasons.get(name, ""))
        for name, named in items
    ]


def reads(granted: Iterable[str], reasons: Mapping[str, str]) -> list[May]:
    """Of the mail."""
    return [May("reads", part, sentence("reads", part), reasons.get(part, "")) for part in granted]


def files(granted: Iterable[Path | str]) -> list[May]:
    """Beside its own folder."""
    return [
        May("files", "files", _EVERY_FILE if str(file) == "/" else sentence("files", "files", (str(file),)))
        for file in granted
    ]


def together(granted: Capabilities, read: Iterable[str]) -> str:
    """What reading and a way out mean together; empty: there are not both."""
    ways = ["the names it looks up"] if granted.dns else []
    ways += [f"its connection to {name}" for name in granted.connect]
    seen = " and ".join(read) or "what its hooks are told"
    return f"together: {seen} can leave this machine by {' and '.join(ways)}" if ways else ""


def failure(on_failure: str, mode: str) -> str:
    """What becomes of mail when it crashes, is killed by a limit, or is late."""
    return SHADOW if mode == "shadow" else FAILURES[on_failure]


def uid_text(uid: int | None) -> str:
    """As whom it runs."""
    return (
        f"uid {uid}, which the admin chose" if uid is not None else "a uid of its own where root starts forkd"
    )
