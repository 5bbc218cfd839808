"""What may a hook change? Edits of header, body, envelope and session.

A hook returns edits beside or instead of a verdict; forkd applies them in their order, and the plugins
after it see the mail as they left it. Wrong values are a ValueError here, where the author's traceback
names his line; forkd checks everything again on its own side.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii as _quoted

from forkd.sdk.replay import fold, longest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_FIELD_OCTETS = 998
"""A header line without its line end (RFC 5322 2.1.1)."""
MAX_NAME_OCTETS = 100
MAX_VALUE_OCTETS = 8_000
"""Of one field, before it is folded: an ARC set or a long Authentication-Results has some 2,000."""
MAX_EXPORT_NAME = 64
MAX_EXPORT_OCTETS = 256
"""What an environment variable of a plugin may be given."""

_EXPORT_NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


class Edit:
    """One change; made by the functions below, never changed itself."""

    __slots__ = ()
    op = ""
    members: tuple[str, ...] = ()
    """Attributes, as PROTOCOL.md names them."""

    def json(self) -> str:
        """The edit as it goes over."""
        members = [f'"op":"{self.op}"']
        for name in self.members:
            value = getattr(self, name)
            members.append(f'"{name}":{value if type(value) is int else _quoted(value)}')
        return f"{{{','.join(members)}}}"

    def __repr__(self) -> str:
        values = ", ".join(repr(getattr(self, name)) for name in self.members)
        return f"{self.op}({values})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))


class AddHeader(Edit):
    """One field on top of the message, below forkd's trace and what was added before."""

    __slots__ = ("name", "value")
    op = "add_header"
    members = __slots__

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value


class ChangeHeader(Edit):
    """The n-th field of that name gets another value."""

    __slots__ = ("n", "name", "value")
    op = "change_header"
    members = ("name", "n", "value")

    def __init__(self, name: str, value: str, n: int) -> None:
        self.name = name
        self.value = value
        self.n = n


class DeleteHeader(Edit):
    """The n-th field of that name goes; 0: all of them."""

    __slots__ = ("n", "name")
    op = "delete_header"
    members = ("name", "n")

    def __init__(self, name: str, n: int) -> None:
        self.name = name
        self.n = n


class ReplaceBody(Edit):
    """Another body, lines ending in CRLF."""

    __slots__ = ("body",)
    op = "replace_body"

    def __init__(self, body: bytes) -> None:
        self.body = body

    def json(self) -> str:
        """Its size only: the octets are fetched piece by piece."""
        return f'{{"op":"replace_body","size":{len(self.body)}}}'

    def __repr__(self) -> str:
        return f"replace_body({len(self.body)} octets)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReplaceBody) and self.body == other.body

    __hash__ = Edit.__hash__


class _AddressEdit(Edit):
    __slots__ = ("address",)
    members = __slots__

    def __init__(self, address: str) -> None:
        self.address = address


class AddRecipient(_AddressEdit):
    """One more recipient of the message."""

    __slots__ = ()
    op = "add_recipient"


class DeleteRecipient(_AddressEdit):
    """One recipient less."""

    __slots__ = ()
    op = "delete_recipient"


class ChangeSender(_AddressEdit):
    """Another reverse path; empty: the null sender."""

    __slots__ = ()
    op = "change_sender"


class RewriteRecipient(_AddressEdit):
    """At rcpt: another address in the place of the client's."""

    __slots__ = ()
    op = "rewrite_recipient"


class Export(Edit):
    """A fact of the session, for later plugins."""

    __slots__ = ("name", "value")
    op = "export"
    members = __slots__

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value


# --- what authors call -----------------------------------------------------------------------------------


def add_header(name: str, value: str) -> AddHeader:
    """Add a field to the message: `return [add_header("X-Checked", "yes")]`. Power: edit_headers.

    value  printable text on one line, 8,000 octets at most; forkd folds it. What is not ASCII may stand
           there only when `message.smtputf8`: else write `encoded(value)`.
    """
    return AddHeader(_name("add_header", name), _value("add_header", name, value))


def change_header(name: str, value: str, n: int = 1) -> ChangeHeader:
    """Give the n-th field of that name, from the top, another value. Power: edit_headers.

    Counted from 1, in the header as the edits before left it; a field that is not there is not added.
    """
    if n < 1:
        raise ValueError(f"change_header {name}: fields are counted from 1, not from {n}")
    return ChangeHeader(_name("change_header", name), _value("change_header", name, value), n)


def delete_header(name: str, n: int = 0) -> DeleteHeader:
    """Take away the n-th field of that name, counted from 1; n=0: all of them. Power: edit_headers."""
    if n < 0:
        raise ValueError(f"delete_header {name}: n is 0 for all fields of that name, or counts from 1")
    return DeleteHeader(_name("delete_header", name), n)


def replace_body(body: bytes | str) -> ReplaceBody:
    """Put another body behind the header: whole, with all its MIME parts. Power: edit_body.

    Lines may end in LF or CRLF; text goes out in UTF-8. Content-Type and Content-Transfer-Encoding are
    header fields: change them too where the new body is made another way. A NUL is a ValueError.
    """
    octets = body.encode() if isinstance(body, str) else bytes(body)
    if b"\0" in octets:
        raise ValueError("replace_body: a message has no NUL (RFC 5321 4.5.2)")
    octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
    if octets and not octets.endswith(b"\r\n"):
        octets += b"\r\n"
    return ReplaceBody(octets)


def add_recipient(address: object) -> AddRecipient:
    """One more recipient: an Address, or text as in `user@example.org`. Power: add_recipient, by domain.

    It must be an address that forkd takes mail for. One that is there already is not added again.
    """
    return AddRecipient(_address("add_recipient", address))


def delete_recipient(address: object) -> DeleteRecipient:
    """Take a recipient out of the envelope; its client was told 250 already. Power: delete_recipient."""
    return DeleteRecipient(_address("delete_recipient", address))


def change_sender(address: object) -> ChangeSender:
    """Another envelope sender: where bounces go. "" is the null sender. Power: change_sender."""
    text = str(address)
    return ChangeSender(_address("change_sender", address) if text else "")


def rewrite(address: object) -> RewriteRecipient:
    """At rcpt: take this address in the place of the recipient. Power: rewrite_recipient.

    It must be an address that forkd takes mail for; the client is answered as if nothing had happened.
    """
    return RewriteRecipient(_address("rewrite", address))


def export(name: str, value: str) -> Export:
    """Set `session.exports[name]` for all later plugins, at any hook but disconnect. Power: export, by name.

    name   A-Z, 0-9 and _, 64 at most; value printable ASCII, 256 octets at most.
    """
    if not 0 < len(name) <= MAX_EXPORT_NAME or not _EXPORT_NAME.issuperset(name):
        raise ValueError(f"export: a name has 1 to {MAX_EXPORT_NAME} of A-Z, 0-9 and _, not {name!r}")
    if not value.isascii() or not value.isprintable() or len(value) > MAX_EXPORT_OCTETS:
        raise ValueError(f"export {name}: the value must be {MAX_EXPORT_OCTETS} printable ASCII at most")
    return Export(name, value)


def _name(what: str, name: str) -> str:
    if not name or not name.isascii() or not name.isprintable() or set(name) & {" ", ":"}:
        raise ValueError(f"{what}: {name!r} is no header name (printable ASCII, no space, no colon)")
    if len(name) > MAX_NAME_OCTETS:
        raise ValueError(f"{what}: a header name has {MAX_NAME_OCTETS} octets at most")
    return name


def _value(what: str, name: str, value: str) -> str:
    if not value.replace("\t", " ").isprintable():
        raise ValueError(f"{what} {name}: the value must be printable, on one line, not {value!r}")
    value = value.strip(" \t")
    if len(value.encode()) > MAX_VALUE_OCTETS:
        raise ValueError(f"{what} {name}: a value has {MAX_VALUE_OCTETS} octets at most")
    if longest(name, fold(name, value)) > MAX_FIELD_OCTETS:
        raise ValueError(
            f"{what} {name}: without spaces to fold at, a line has {MAX_FIELD_OCTETS} octets at most"
        )
    return value


def _address(what: str, address: object) -> str:
    text = str(address)
    if "@" not in text or not text.isprintable() or set(text) & {"<", ">"}:
        raise ValueError(f"{what}: {text!r} is no address as in user@example.org")
    return text


def edit_of(given: dict[str, Any]) -> Edit:
    """The edit that a frame tells of. Raises KeyError, TypeError for one that no frame has."""
    members = dict(given)
    made: Edit = _CLASSES[members.pop("op")](**members)
    return made


_CLASSES: dict[str, type[Any]] = {
    made.op: made
    for made in (
        AddHeader,
        ChangeHeader,
        DeleteHeader,
        AddRecipient,
        DeleteRecipient,
        ChangeSender,
        RewriteRecipient,
        Export,
    )
}
