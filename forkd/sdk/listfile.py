"""What stands in a list file? One entry a line, `#` comments, UTF-8: the form all stock plugins read.

A typing error must not let mail through, so whoever reads a list is told of every bad line at once, with
file and line number, and the plugin does not start.

    def take(entry):                    # raises EntryError for what is no entry
        blocked.add(domain_name(entry))

    take_all([*read_entries(path), *given("setting domains", settings["domains"])], take)
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    T = TypeVar("T")

MAX_REPORTED = 20
"""Bad entries shown at once: enough to repair a file, few enough to read."""

_DOMAIN = re.compile(
    r"(?=.{1,255}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_LITERAL = re.compile(r"\[[0-9a-z:.]+\]")
_COMMENT = re.compile(r"(?:^|\s)#.*")


class EntryError(ValueError):
    """A text that is no entry; says why."""


def read_entries(path: str) -> Iterator[tuple[str, str]]:
    """The file's entries as ("file:line", entry), without comments and the white space around.

    # at the start of a line or behind white space begins a comment; empty lines are skipped.
    Raises OSError, and EntryError for what is no UTF-8.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib would cost every sandbox its pages
        for number, octets in enumerate(file, start=1):
            place = f"{path}:{number}"
            try:
                line = octets.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise EntryError(f"{place}: not UTF-8") from None
            entry = _COMMENT.sub("", line).strip()
            if entry:
                yield place, entry


def given(setting: str, entries: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Entries that stand in a setting, in the form of read_entries()."""
    for number, entry in enumerate(entries, start=1):
        yield f"setting {setting}, entry {number}", entry.strip()


def take_all(entries: Iterable[tuple[str, str]], take: Callable[[str], object], *, what: str) -> None:
    """Hand every entry to `take`; raise one EntryError that shows all those it did not take.

    what  says what the entries should have been: "these are no senders".
    """
    problems: list[str] = []
    for place, entry in entries:
        try:
            take(entry)
        except EntryError as why:
            problems.append(f"{place}: {entry!r}: {why}")
    if len(problems) == 1:
        raise EntryError(f"{what}: {problems[0]}")
    if problems:
        more = len(problems) - MAX_REPORTED
        shown = problems[:MAX_REPORTED] + ([f"... and {more} more"] if more > 0 else [])
        raise EntryError("\n".join([f"{what}:", *shown]))


def checked(setting: str, make: Callable[..., T], *arguments: object) -> T:
    """What `make` makes of them; its ValueError with the setting's name in front, for plugin_init.

    refusal = checked("text", deny, "5.7.1", settings["text"])
    """
    try:
        return make(*arguments)
    except ValueError as why:
        raise EntryError(f"setting {setting}: {why}") from None


def domain_name(text: str) -> str:
    """A domain as hooks see it: lower case, xn-- form, no final dot; an address literal in brackets.

    Raises EntryError.
    """
    text = text.lower().rstrip(".")
    if not text.isascii():
        try:
            text = text.encode("idna").decode("ascii")
        except UnicodeError:
            raise EntryError("no domain name") from None
    if not _DOMAIN.fullmatch(text) and not _LITERAL.fullmatch(text):
        raise EntryError("no domain name")
    return text


def unquoted(local: str) -> str:
    """A local part as hooks see it: a quoted one without quotes and backslashes (RFC 5321 4.1.2)."""
    if len(local) > 2 and local[0] == local[-1] == '"':
        return re.sub(r"\\(.)", r"\1", local[1:-1])
    return local
