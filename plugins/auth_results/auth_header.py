"""How is an Authentication-Results field read and written? RFC 8601."""

from __future__ import annotations

import re
from collections.abc import Iterable

_TOKEN = re.compile(r"[!#$%&'*+.0-9A-Z^_`a-z{|}~-]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PLAIN_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+")


def claims(value: str, authserv_id: str) -> bool:
    """Does a field's value say that we wrote it? Also one that cannot be read and has our name in it."""
    found = _authserv_id(value)
    wanted = authserv_id.lower()
    if found is None:
        return wanted in value.lower()
    return found.lower() == wanted


def _authserv_id(value: str) -> str | None:
    """The name in front, behind blanks and comments (RFC 8601 2.2); None: there is none to be read."""
    rest = _behind_comments(value)
    if rest is None:
        return None
    if quoted := _QUOTED.match(rest):
        return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
    if token := _TOKEN.match(rest):
        return token[0]
    return None


def without_comments(value: str) -> str:
    """The value with every comment taken out, nested ones too; one that never ends goes on to the end."""
    kept = []
    depth = at = 0
    while at < len(value):
        character = value[at]
        if character == "\\" and depth:
            at += 1
        elif character == "(":
            depth += 1
        elif character == ")" and depth:
            depth -= 1
        elif not depth:
            kept.append(character)
        at += 1
    return "".join(kept)


def _behind_comments(value: str) -> str | None:
    depth = at = 0
    while at < len(value):
        character = value[at]
        if character == "(":
            depth += 1
        elif character == ")" and depth:
            depth -= 1
        elif character == "\\" and depth:
            at += 1
        elif not depth and not character.isspace():
            return value[at:]
        at += 1
    return None


def written(authserv_id: str, results: Iterable[str]) -> str:
    """A field's value on one line; forkd folds it."""
    return "; ".join((authserv_id, *(list(results) or ["none"])))


def result(method: str, outcome: str, *properties: tuple[str, str], reason: str = "") -> str:
    """One result, e.g. `spf=pass smtp.mailfrom=a@example.org`; properties without a value are left out."""
    said = f"{method}={outcome}"
    if reason:
        said += f" ({reason})"
    return " ".join((said, *(f"{name}={value}" for name, value in properties if value)))


def mailbox(address: str) -> str:
    """An address as a property's value: whole where its local part is plain, else its domain alone."""
    local, at, domain = address.rpartition("@")
    if not _is_domain(domain):
        return ""
    return f"{local}@{domain}" if at and _PLAIN_LOCAL.fullmatch(local) else domain


def _is_domain(name: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9._-]{1,253}", name))
