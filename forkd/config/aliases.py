"""Which addresses does an alias stand for? The files of [aliases], read and looked up; pure but for read().

    # one alias a line: an address or a whole domain, a colon, what it stands for
    info@example.org:   alice@example.org, bob@example.org
                        carol@example.net                 (a line that begins with a blank goes on)
    alice@example.org:  alice@example.org, archive@example.org
    @old.example.org:   @example.org
    @example.com:       postmaster@example.org

An address that an alias stands for is looked up again, at most MOST_DEPTH times; the alias itself means the
mailbox of that name. `@domain` takes what has no line of its own in that domain (an address that shall keep
its mailbox has a line that names itself); on the right it keeps the part before the @. A detail address is
looked up whole, then without its detail, which goes no further.

The sender stays the sender (RFC 5321 3.9.1), unless there is an alias `owner-NAME` for NAME in its domain:
then the alias is a list, and reports about its members go to the owner (3.9.2).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from forkd.config.domains import is_domain
from forkd.config.folding import folded
from forkd.config.problems import Problems, Source, display_path
from forkd.smtp.address import Mailbox, a_labels, split_address

MOST_DEPTH: Final = 10
"""Aliases of aliases; what is deeper is a mistake, and refused when the files are read."""
MOST_ADDRESSES: Final = 10_000
"""That one recipient may become, and all recipients of one message by their aliases: a client must not make
a worker busy for long, nor an envelope of any size. Larger lists are a list manager's."""

Key = tuple[str, str]
"""Local part (folded; empty: the whole domain) and domain in A-labels."""

_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[^"]')


@dataclasses.dataclass(frozen=True, slots=True)
class Alias:
    """One line."""

    targets: tuple[str, ...]
    """As Mailbox writes them, or `@domain`."""
    source: Source
    """The file it stands in."""
    line: int


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One address that a recipient became."""

    address: str
    owner: str = ""
    """The sender that this address' mail is to have; empty: the sender stays."""


class TooMany(Exception):  # noqa: N818 - a state of the world
    """A recipient would become more than MOST_ADDRESSES."""


Details = Callable[[str], str]
"""Domain -> its separator of details; empty: it has none."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Walk:
    """One expansion."""

    detail_of: Details
    found: dict[Key, Member] = dataclasses.field(default_factory=dict)
    seen: set[Key] = dataclasses.field(default_factory=set)
    steps: list[tuple[str, Alias]] = dataclasses.field(default_factory=list)


class Aliases:
    """The table; make it with read()."""

    __slots__ = ("table",)

    def __init__(self, table: Mapping[Key, Alias]) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def find(self, local: str, domain: str, detail: str = "") -> Key | None:
        """The line that an address falls under.

        local, domain  as in Mailbox
        detail         the domain's separator: `info+x` is looked up whole, then as `info`
        """
        own = key_of(local, domain)
        if own in self.table:
            return own
        if detail and (at := local.find(detail, 1)) >= 0:
            base = folded(local[:at]), own[1]
            if base in self.table:
                return base
        every = "", own[1]
        return every if every in self.table else None

    def expand(self, local: str, domain: str, detail_of: Details) -> dict[Key, Member]:
        """What an address stands for, each once, in the order of the file; itself where there is no alias.

        Raises TooMany.
        """
        walk = _Walk(detail_of)
        self._expand(walk, str(Mailbox(local, domain)), "", ())
        return walk.found

    def steps(self, local: str, domain: str, detail_of: Details) -> list[tuple[str, Alias]]:
        """How it is expanded: addresses, and the lines that they fall under. Raises TooMany."""
        walk = _Walk(detail_of)
        self._expand(walk, str(Mailbox(local, domain)), "", ())
        return walk.steps

    def _expand(self, walk: _Walk, address: str, owner: str, above: tuple[Key, ...]) -> None:
        """Add what the address stands for."""
        local, domain = split_address(address)
        own = key_of(local, domain)
        key = self.find(local, domain, walk.detail_of(domain))
        if key is None or (above and above[-1] == own) or len(above) >= MOST_DEPTH:
            walk.found.setdefault(own, Member(address, owner))
            if len(walk.found) > MOST_ADDRESSES:
                raise TooMany
            return
        if own in walk.seen:
            return  # a second way to it: what it stands for is, or is being, added
        walk.seen.add(own)
        walk.steps.append((address, self.table[key]))
        owner = self._owner_of(key) or owner
        for target in self.table[key].targets:
            self._expand(walk, _kept(target, local), owner, (*above, own))

    def _owner_of(self, key: Key) -> str:
        local, domain = key
        owner = f"owner-{local}"
        return str(Mailbox(owner, domain)) if local and (owner, domain) in self.table else ""


NO_ALIASES: Final = Aliases({})


def read(paths: Sequence[Path], problems: Problems, *, detail_of: Details) -> Aliases:
    """The aliases of those files, which are one table; whatever is wrong in them is noted, with its line."""
    table: dict[Key, Alias] = {}
    before = len(problems)
    for path in paths:
        source = Source(path, folder=path.parent)
        try:
            data = path.read_bytes()
        except OSError as error:
            said = (error.strerror or str(error)).lower()
            problems.add(source, (), f"the aliases cannot be read: {said}")
            continue
        try:
            text = data.decode().removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            source = dataclasses.replace(source, text=data.decode("utf-8", "replace"))
            line = data.count(b"\n", 0, error.start) + 1
            problems.add_at_line(source, line, "this is not UTF-8 text", hint="save the file as UTF-8")
            continue
        _parse(dataclasses.replace(source, text=text), table, problems)
    if len(problems) == before:
        for loop in _loops(Aliases(table), detail_of):
            first = table[loop[0]]
            problems.add_at_line(first.source, first.line, _loop_rule(loop))
    return Aliases(table) if len(problems) == before else NO_ALIASES


def _parse(source: Source, table: dict[Key, Alias], problems: Problems) -> None:
    for number, line in _logical_lines(source.text):
        try:
            name, targets = _split(line)
            key = _checked(name)
            if key in table:
                raise ValueError(f"{name} stands in {_place(table[key], source)} already")
            for target in targets:
                _checked(target)
            if any(target.startswith("@") for target in targets) and key[0]:
                raise ValueError(
                    "@domain stands for a whole domain, and only where a whole domain stands before"
                )
            table[key] = Alias(tuple(map(_written, targets)), source, number)
        except ValueError as error:
            problems.add_at_line(source, number, str(error))


def _place(alias: Alias, source: Source) -> str:
    line = f"line {alias.line}"
    return line if alias.source is source else f"{line} of {display_path(alias.source.path)}"


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Number of the first line, and all that belongs to it."""
    begun, parts = 0, list[str]()
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if line[0] in " \t" and parts:
            # A comma at the end of the line before it may stand or not.
            parts.append(stripped)
            continue
        if parts:
            yield begun, ", ".join(parts)
        begun, parts = number, [stripped]
    if parts:
        yield begun, ", ".join(parts)


def _split(line: str) -> tuple[str, list[str]]:
    """Name and targets; quoted local parts may hold anything."""
    pieces, colon = [""], False
    found = _PIECE.findall(line)
    if sum(map(len, found)) < len(line):
        raise ValueError('a " stands alone')
    for piece in found:
        if piece == ("," if colon else ":"):
            colon = True
            pieces.append("")
        else:
            pieces[-1] += piece
    name, *rest = (text.strip() for text in pieces)
    targets = [target for target in rest if target]
    if not colon:
        raise ValueError("this is ADDRESS: ADDRESS, ...")
    if not targets:
        raise ValueError(f"nothing stands behind {name}:")
    return name, targets


def _checked(address: str) -> Key:
    """The key of an address or @domain. Raises ValueError."""
    local, domain = split_address(address)
    plain = local if not address.startswith('"') else ""
    signs = any(c in plain for c in ' \t,:;<>()[]\\"@') or not local.isprintable()
    if signs or not (local or address.startswith("@")):
        raise ValueError(
            f'{address or "nothing"} is no address: this is "user@example.org" or "@example.org"'
        )
    if not is_domain(domain):
        hint = "" if domain else ": it has no domain"
        raise ValueError(f"{address} is no address{hint}")
    return key_of(local, domain)


def key_of(local: str, domain: str) -> Key:
    """An address as it is compared."""
    try:
        return folded(local), a_labels(domain)
    except ValueError:
        return folded(local), domain


def _written(target: str) -> str:
    """Quoted where it must be, and only there."""
    return target if target.startswith("@") else str(Mailbox(*split_address(target)))


def _kept(target: str, local: str) -> str:
    return str(Mailbox(local, target[1:])) if target.startswith("@") else target


def _loops(aliases: Aliases, detail_of: Details) -> Iterator[tuple[Key, ...]]:
    """Aliases that stand for each other in a circle, or go on too deep, by the lines as they are written.

    Each alias is left once, so it costs as much as the file is long. An alias that names itself is none.
    """
    depth: dict[Key, int] = {}
    for start in aliases.table:
        if start in depth:
            continue
        way: list[tuple[Key, Iterator[Key]]] = [(start, _next(aliases, start, detail_of))]
        on_way = {start}
        depth[start] = 0
        while way:
            key, rest = way[-1]
            after = next(rest, None)
            if after is None:
                way.pop()
                on_way.discard(key)
                if way:
                    above = way[-1][0]
                    depth[above] = max(depth[above], depth[key] + 1)
                if depth[key] == MOST_DEPTH:
                    yield (key,)
            elif after in on_way:
                keys = [one for one, _ in way]
                yield tuple(keys[keys.index(after) :])
            elif after in depth:
                depth[key] = max(depth[key], depth[after] + 1)
            else:
                depth[after] = 0
                on_way.add(after)
                way.append((after, _next(aliases, after, detail_of)))


def _next(aliases: Aliases, key: Key, detail_of: Details) -> Iterator[Key]:
    for target in aliases.table[key].targets:
        local, domain = split_address(target)
        after = aliases.find(local, domain, detail_of(domain))
        # `@a.org: x@a.org` is none: that is the mailbox. `@a.org: @a.org` is one.
        if after is not None and (after != key or not local):
            yield after


def _loop_rule(loop: tuple[Key, ...]) -> str:
    names = [f"{local}@{domain}" for local, domain in loop]
    if len(names) == 1:
        return f"aliases of aliases go {MOST_DEPTH} deep at most, from {names[0]} it is more"
    return f"aliases stand for each other in a circle: {' -> '.join([*names, names[0]])}"
