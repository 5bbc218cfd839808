"""forkd.sdk.mime: what a check must see of a message, whatever some mail reader makes of it."""

from __future__ import annotations

import base64
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.sdk.headers import Headers
from forkd.sdk.mime import MAX_DEPTH, MAX_PARTS, Walk, file_names


def leaves(message: str | bytes) -> list[tuple[str, list[str]]]:
    octets = message.encode() if isinstance(message, str) else message
    return [(part.content_type, part.names) for part in Walk(octets.replace(b"\n", b"\r\n"))]


def multipart(*parts: str, boundary: str = "b", kind: str = "mixed", head: str = "") -> str:
    inside = "".join(f"--{boundary}\n{part}\n" for part in parts)
    return f"{head}Content-Type: multipart/{kind}; boundary={boundary}\n\n{inside}--{boundary}--\n"


EXE = 'Content-Type: application/octet-stream; name="a.exe"\nContent-Transfer-Encoding: base64\n\nTVo=\n'


def test_a_message_without_mime_is_one_text():
    """RFC 2045 5.2: text/plain."""
    assert leaves("Subject: x\n\nhello\n") == [("text/plain", [])]


def test_parts_come_in_their_order_and_multiparts_do_not():
    """RFC 2046 5.1."""
    inner = multipart("Content-Type: text/html\n\nh", "\nplain", boundary="inner", kind="alternative")
    assert leaves(multipart(inner, EXE)) == [
        ("text/html", []),
        ("text/plain", []),
        ("application/octet-stream", ["a.exe"]),
    ]


def test_content_is_decoded():
    """RFC 2045 6: base64, quoted-printable, and the octets themselves."""
    message = multipart(
        "Content-Transfer-Encoding: BASE64\n\naGVs\nbG8=\n",
        "Content-Transfer-Encoding: quoted-printable\n\nh=65llo=\n!\n",
        "\nhello\n",
    ).encode()
    assert [part.content() for part in Walk(message)] == [b"hello", b"hello!\n", b"hello\n"]
    assert [part.content(2) for part in Walk(message)] == [b"he"] * 3


@pytest.mark.parametrize(
    "damage", ["aGVs!bG8", "aGVsbG8", "aGVsbG8===", "aGVs\n\n\nbG8=", "aGV sbG8=", "aGVsbG8=\0"]
)
def test_damaged_base64_is_decoded_as_far_as_it_goes(damage: str):
    """As mail readers do: a stray sign must not hide a program."""
    part = next(iter(Walk(f"Content-Transfer-Encoding: base64\n\n{damage}".encode())))
    assert part.content() == b"hello"


def test_what_is_behind_the_closing_boundary_is_seen_too():
    """Readers differ in whether they stop there."""
    assert ("application/octet-stream", ["a.exe"]) in leaves(multipart("\nx") + f"--b\n{EXE}--b--\n")


def test_a_boundary_that_never_closes():
    """The last part ends with the message."""
    assert ("application/octet-stream", ["a.exe"]) in leaves(
        f"Content-Type: multipart/mixed; boundary=b\n\n--b\n{EXE}"
    )


def test_preamble_is_a_part():
    """No part to MIME, text to an old reader: a uuencoded file could stand there."""
    message = b"Content-Type: multipart/mixed; boundary=b\n\nbegin 644 a.exe\n--b\n\nx\n--b--\n"
    assert next(iter(Walk(message))).raw() == b"begin 644 a.exe"


def test_attached_messages_are_walked():
    """RFC 2046 5.2.1, also where a reader would accept that they are base64."""
    attached = f"Subject: inner\n{multipart(EXE, boundary='i')}"
    coded = base64.encodebytes(attached.encode()).decode()
    for part in (
        f"Content-Type: message/rfc822\n\n{attached}",
        f"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n{coded}",
    ):
        assert ("application/octet-stream", ["a.exe"]) in leaves(multipart(part))
    assert leaves(multipart(f"\n{attached}", kind="digest")) == leaves(attached)


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ('Content-Disposition: attachment; filename="a b.exe"', ["a b.exe"]),
        ("Content-Disposition: attachment; filename=a.exe", ["a.exe"]),
        ('Content-Disposition: attachment; filename="a\\"b.exe"', ['a"b.exe']),
        ('Content-Disposition: attachment; FileName = "a.exe"', ["a.exe"]),
        ('Content-Disposition: attachment; filename="a.exe', ["a.exe"]),
        ("Content-Disposition: attachment; filename*=utf-8''%C3%A4.exe", ["ä.exe"]),
        ("Content-Disposition: attachment; filename*=iso-8859-1'de'%E4.exe", ["ä.exe"]),
        ("Content-Disposition: attachment; filename*0=a; filename*1=.exe", ["a.exe"]),
        ("Content-Disposition: attachment; filename*1=xe; filename*0=a.e", ["a.exe"]),
        ("Content-Disposition: attachment; filename*0*=utf-8''%C3%A4; filename*1=.exe", ["ä.exe"]),
        ("Content-Disposition: attachment; filename*=nonsense''a.exe", ["a.exe"]),
        ("Content-Disposition: attachment; filename*=a%2Eexe", ["a.exe"]),
        ('Content-Disposition: attachment; filename="=?utf-8?B?w6QuZXhl?="', ["ä.exe"]),
        ('Content-Type: application/x; name="a.exe"', ["a.exe"]),
        ('Content-Disposition: attachment; filename="a.txt"; filename="a.exe"', ["a.txt", "a.exe"]),
        ('Content-Disposition: attachment;\n filename="a.exe"', ["a.exe"]),
        ("Content-Disposition: attachment", []),
    ],
)  # fmt: skip
def test_every_name_is_told(field: str, names: list[str]):
    """RFC 2183, 2231, 2047 as it is misused: readers differ in which name they take."""
    assert file_names(Headers(f"{field}\n\n".encode())) == names


def test_names_of_both_fields_are_told():
    """One reader takes the disposition's, another the type's."""
    header = b'Content-Type: text/plain; name="a.exe"\nContent-Disposition: inline; filename="a.txt"\n\n'
    assert file_names(Headers(header)) == ["a.txt", "a.exe"]


def test_boundary_with_white_space_behind_it_and_without_line_end():
    """RFC 2046 5.1.1 transport padding."""
    assert len(leaves("Content-Type: multipart/mixed; boundary=b\n\n--b \t\n\nx\n--b\n\ny\n--b--")) == 2


def test_longer_boundary_of_an_inner_part_is_none_of_the_outer():
    """--b does not end at --bc."""
    message = multipart(multipart("\nx", boundary="bc"), "\ny", boundary="b")
    assert [part.raw() for part in Walk(message.encode()) if part.raw().strip()] == [b"x", b"y"]


def test_span_is_where_the_octets_lie():
    """For whoever edits a part in its place."""
    message = multipart("\none", "\ntwo").encode()
    for part in Walk(message):
        assert part.span is not None
        assert message[slice(*part.span)] == part.raw()


def test_work_is_bounded():
    """Parts without end, and multiparts within each other without end: both are told."""
    many = Walk(multipart(*["\nx"] * (MAX_PARTS + 10)).encode())
    assert len(list(many)) <= MAX_PARTS
    assert many.cut
    deep = "\nx"
    for level in range(MAX_DEPTH + 5):
        deep = multipart(deep, boundary=f"b{level}")
    walk = Walk(deep.encode())
    assert list(walk)
    assert walk.cut


PIECES = st.sampled_from(
    [b"--b", b"--b--", b"\r\n", b"\n", b"\r", b"Content-Type: multipart/mixed; boundary=b", b": ", b";",
     b'"', b"Content-Type: message/rfc822", b"Content-Transfer-Encoding: base64", b"=?utf-8?B?", b"?=",
     b"name*0*=", b"''%", b"x" * 80, b"\xff\0", b"Content-Disposition: attachment; filename=", b"boundary=",
     b"charset=\xe4"]
)  # fmt: skip


@given(st.lists(PIECES | st.binary(max_size=8), max_size=60).map(b"".join))
def test_no_message_makes_it_raise(message: bytes):
    """The octets come from anybody; parts lie within the message."""
    for part in Walk(message):
        assert isinstance(part.content(), bytes)
        assert all(isinstance(name, str) for name in part.names)
        if part.span is not None:
            assert 0 <= part.span[0] <= part.span[1] <= len(message)


TWICE = "Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=b\n\n--b\n" + EXE + "--b--\n"


def test_what_only_some_readers_see_comes_last_and_has_no_span():
    """Whoever edits parts in their place must not meet one twice."""
    parts = list(Walk(TWICE.encode()))
    assert [(part.content_type, part.names, part.span is None) for part in parts] == [
        ("text/plain", [], False),
        ("application/octet-stream", ["a.exe"], True),
    ]


def test_a_header_with_a_line_that_is_no_field_has_two_readings():
    """It ends there (Postfix, Python's email), or the line is passed over."""
    parts = list(Walk(f"Subject: x\nno field\n{EXE}".encode()))
    assert [part.names for part in parts] == [[], ["a.exe"]]


def test_padding_in_the_middle_of_base64_has_two_readings():
    """It ends a group, or it is passed over."""
    part = next(iter(Walk(b"Content-Transfer-Encoding: base64\n\naA==ZWxsbw==")))
    assert part.content() == b"hello"
    assert len(part.readings()) == 2
    assert next(iter(Walk(b"Content-Transfer-Encoding: base64\n\naGVs\nbG8=\n"))).readings() == [b"hello"]


@pytest.mark.parametrize(
    "header",
    [
        "Content-Type: a/b; " + "x" * 20_000,
        "Content-Type: a/b\n" * 9,
        "Content-Type: multipart/mixed; " + "".join(f"boundary={n}; " for n in range(9)),
        "X: y\n" * 10_001,
    ],
)
def test_a_header_beyond_its_bounds_is_told(header: str):
    """`cut`: somebody may see more than was looked at."""
    walk = Walk(f"{header}\n\nx\n".encode())
    assert list(walk)
    assert walk.cut


def parts(*contents: bytes) -> bytes:
    whole = b"".join(b"--b\r\n" + content + b"\r\n" for content in contents)
    return b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + whole + b"--b--\r\n"


CODED_RFC822 = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
COSTLY = {
    "headers": (parts(*[b"X: " + b"a" * 40_000 + b"\r\n\r\nx"] * 60), 60),
    "boundary lines": (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n" * 3_000, 1),
    "padding": (parts(*[b"Content-Transfer-Encoding: base64\r\n\r\n" + b"QQ==\r\n" * 1_000] * 60), 60),
    "attached messages undone": (CODED_RFC822 * 20 + b"\r\n" + b"y" * 4_000_000, 1),
    "depth over a large body": (
        b"".join(b"Content-Type: multipart/mixed; boundary=%da\r\n\r\n--%da\r\n" % (n, n) for n in range(30))
        + b"\r\n"
        + b"y" * 8_000_000,
        1,
    ),
}


@pytest.mark.parametrize(("message", "count"), COSTLY.values(), ids=list(COSTLY))
def test_a_message_that_is_made_to_cost_much_is_cut(message: bytes, count: int):
    """And it is known before the parts behind the bound are given: a check stops there."""
    walk = Walk(message)
    given = list(itertools.takewhile(lambda _: not walk.cut, walk))
    assert walk.cut
    assert len(given) < count


def test_real_mail_meets_no_bound():
    """A digest of 200 mails, 10 MiB of base64 whose encoder pads each KiB, an attached message undone."""
    digest = parts(*[b"Content-Type: message/rfc822\r\n\r\nX: " + b"a" * 4_000 + b"\r\n\r\nx"] * 200)
    padded = b"Content-Transfer-Encoding: base64\r\n\r\n" + (b"QUFB" * 340 + b"QQ==\r\n") * 7_000
    attached = CODED_RFC822.replace(b"quoted-printable", b"base64") + b"U3ViamVjdDogeAoK" * 500_000
    for message in (digest, parts(padded), attached):
        walk = Walk(message)
        assert list(walk)
        assert not walk.cut
