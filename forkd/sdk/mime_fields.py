"""What does a MIME field say: its type, its parameters, its file names? Whatever some reader makes of it.

Readers differ in malformed fields, so every value is told that one of them may take, the usual first.
Standard library only: this module also runs inside sandboxes.
"""

from __future__ import annotations

import re

from forkd.sdk.headers import Headers, decode_words, text_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    _Pieces = dict[int, tuple[str, bool]]
    """RFC 2231 3: number -> text, extended."""

MAX_FIELD = 16_384
"""Characters of a field that are looked at; real ones have below 1,000."""
MAX_SAME = 8
"""Fields of one name that are looked at."""
_MAX_VALUE = 1_000
"""Of a value whose quotes were forgotten."""
_PARAMETER = re.compile(
    r"""(?<![^;,\s"()])([!#$%&+\-^_`{|}~\w.']+?)(?:\*(\d{1,3}))?(\*)?\s*=\s*("(?:[^"\\]|\\.)*"?|[^\s;]*)""",
    re.DOTALL,
)
"""name, continuation, extended (RFC 2231 3, 4), value; tolerant of what RFC 2045 forbids: no semicolon before
it, nothing but parameters."""
_NAMES = (
    ("Content-Disposition", "filename"),
    ("Content-Type", "name"),
    ("Content-Disposition", "name"),
    ("Content-Type", "filename"),
)
_COMMENT_OR_QUOTED = re.compile(r"""\\.|["()]|[^\\"()]+""", re.DOTALL)
_TYPE = re.compile(r"([\w!#$&^.+\-]+)\s*/\s*([\w!#$&^.+\-]+)")


def file_names(headers: Headers) -> list[str]:
    """Every file name in the part's Content-Disposition and Content-Type fields, decoded."""
    return distinct(
        name
        for field, wanted in _NAMES
        for value in headers.get_all(field)[:MAX_SAME]
        for name in parameter(value, wanted)
        if name
    )


def beyond_bounds(headers: Headers) -> bool:
    """Is there more of one of the fields that this module knows than is looked at?"""
    found = [
        headers.get_all(name) for name in ("Content-Disposition", "Content-Type", "Content-Transfer-Encoding")
    ]
    return any(len(values) > MAX_SAME or any(len(value) > MAX_FIELD for value in values) for values in found)


def parameter(value: str, wanted: str) -> list[str]:
    """Every value that a structured field gives a parameter: plain, quoted, RFC 2047, RFC 2231.

    RFC 2231 forms come first, as readers prefer them; continued ones are joined in the order of their
    numbers. Last come those that only some readers see: in a field with comments or encoded words
    (RFC 2047) around its parameters, or with quotes forgotten.
    """
    value = value[:MAX_FIELD]
    found, doubtful = _parameter(value, wanted)
    if "(" in value:
        plain, odd = _parameter(_without_comments(value), wanted)
        doubtful += plain + odd
    if "=?" in value:
        plain, odd = _parameter(decode_words(value), wanted)
        doubtful += plain + odd
    return distinct(found + doubtful)


def _parameter(value: str, wanted: str) -> tuple[list[str], list[str]]:
    """Its values, and those that it has where quotes were forgotten or pieces are there twice."""
    plain: list[str] = []
    whole: list[str] = []
    doubtful: list[str] = []
    first: _Pieces = {}
    last: _Pieces = {}
    for match in _PARAMETER.finditer(value):
        if match[1].lower() != wanted:
            continue
        text = match[4]
        # With quotes forgotten, some readers take all up to the semicolon.
        rest = value[match.start(4) : match.start(4) + _MAX_VALUE].partition(";")[0].strip()
        if text.startswith('"'):
            closed = len(text) > 1 and text.endswith('"')
            if not closed or value[match.end() : match.end() + 1] not in ("", ";", " ", "\t", "("):
                doubtful.append(rest.replace('"', ""))
            text = re.sub(r"\\(.)", r"\1", text[1:-1] if closed else text[1:])
        elif rest != text:
            doubtful.append(rest)
        if match[2] is not None:
            piece = (text, bool(match[3]))
            first.setdefault(int(match[2]), piece)
            last[int(match[2])] = piece
        elif match[3]:
            whole.append(_extended(text))
        else:
            plain.append(_words(text))
    if first:
        whole.append(_joined(first))
        without_gap = {number: last[number] for number in _run(last)}
        doubtful += [_joined(last), _joined(without_gap)]
    return whole + plain, [_words(text) for text in doubtful if text]


def _run(pieces: _Pieces) -> Iterator[int]:
    """0, 1, 2 … as far as they are there."""
    number = 0
    while number in pieces:
        yield number
        number += 1


def _without_comments(value: str) -> str:
    """RFC 5322 3.2.2, within each other too; what is quoted stays."""
    kept: list[str] = []
    depth, quoted = 0, False
    for piece in _COMMENT_OR_QUOTED.findall(value):
        if not quoted and piece == "(":
            depth += 1
        elif not quoted and piece == ")":
            depth = max(0, depth - 1)
        elif not depth:
            quoted ^= piece == '"'
            kept.append(piece)
    return "".join(kept)


def _joined(pieces: _Pieces) -> str:
    octets = bytearray()
    charset = "utf-8"
    for number in sorted(pieces):
        text, extended = pieces[number]
        if extended and number == 0 and text.count("'") >= 2:
            charset, _, text = text.split("'", 2)
        octets += _percent(text) if extended else text.encode("utf-8", "replace")
    return text_in(charset or "utf-8", bytes(octets))


def _extended(text: str) -> str:
    """RFC 2231 4: charset'language'octets in percent form."""
    if text.count("'") < 2:
        return text_in("utf-8", _percent(text))
    charset, _, text = text.split("'", 2)
    return text_in(charset or "utf-8", _percent(text))


def _percent(text: str) -> bytes:
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda m: bytes([int(m[1], 16)]), text.encode("utf-8", "replace"))


def _words(text: str) -> str:
    """RFC 2047 within quotes is forbidden there (its section 5) and understood by every reader."""
    return decode_words(text) if "=?" in text else text


def media_type(value: str) -> str:
    """The type that a Content-Type names, lower case; empty where it has no form."""
    match = _TYPE.match(_without_comments(value[:MAX_FIELD]).strip())
    return f"{match[1]}/{match[2]}".lower() if match else ""


def token_of(value: str) -> str:
    """The word that an encoding is named by."""
    words = re.split(r"[\s;,]+", _without_comments(value[:MAX_FIELD]).replace('"', " ").strip(), maxsplit=1)
    return words[0].lower()


def distinct(found: Iterable[str]) -> list[str]:
    """Each once, in the order in which they came first."""
    return list(dict.fromkeys(found))
