"""Messages with octets beyond ASCII, made fit for servers without 8BITMIME: the same to who reads them."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkd.message.seven_bit import beyond_ascii, encoded, parts_beyond_ascii

TEXT = "Größe: 1 €, und = auch\r\n.\r\nFrom hier\r\nblank am Ende \r\n" + "ü" * 300 + "\r\n"


def seven(message: bytes, *, piece: int = 0) -> bytes:
    """Encoded, given in pieces of that length."""
    pieces = [message[at : at + piece] for at in range(0, len(message), piece)] if piece else [message]
    return b"".join(encoded(pieces, parts_beyond_ascii(pieces)))


def read(message: bytes) -> EmailMessage:
    return email.message_from_bytes(message, policy=email.policy.SMTP)  # type: ignore[return-value]


def leaves(message: EmailMessage) -> list[tuple[str, bytes]]:
    """Kind and content of each part that holds no other."""
    return [
        (part.get_content_type(), part.get_payload(decode=True) or b"")
        for part in message.walk()
        if not part.is_multipart()
    ]


def a_multipart() -> bytes:
    """Text in 8 bits, HTML in base64, an attached message with 8 bits of its own, in CRLF."""
    inner = EmailMessage(policy=email.policy.SMTP)
    inner["Subject"] = "inner"
    inner.set_content(TEXT, cte="8bit")
    outer = EmailMessage(policy=email.policy.SMTP)
    outer["Subject"] = "outer"
    outer.set_content(TEXT, cte="8bit")
    outer.add_alternative("<p>ü</p>", subtype="html", cte="base64")
    outer.add_attachment(inner)
    outer.add_attachment("plain\r\n", cte="7bit")
    return outer.as_bytes(policy=email.policy.SMTP.clone(cte_type="8bit"))


@pytest.mark.parametrize("piece", [0, 1, 7, 1000], ids=str)
def test_all_parts_say_the_same_in_seven_bits(piece: int) -> None:
    """Whatever the pieces; parts that have nothing beyond ASCII stay as they are."""
    message = a_multipart()
    assert not message.isascii()
    out = seven(message, piece=piece)
    assert out.isascii()
    assert leaves(read(out)) == leaves(read(message))
    assert "8bit" not in out.decode("ascii")
    assert out.count(b"base64") == 1
    assert out.count(b"quoted-printable") == 2


def test_a_message_without_mime() -> None:
    """Its octets survive; of what charset they are nobody says."""
    out = seven(b"Subject: x\r\n\r\ngr\xfc\xdfe\r\n")
    made = read(out)
    assert out.isascii()
    assert (made["MIME-Version"], made.get_content_charset()) == ("1.0", "unknown-8bit")
    assert made.get_payload(decode=True) == b"gr\xfc\xdfe\r\n"


def test_a_message_in_ascii_stays() -> None:
    """Octet by octet."""
    message = a_multipart().decode().encode("ascii", "replace").replace(b"8bit", b"7bit")
    assert seven(message) == message


def test_lines_stay_short() -> None:
    """RFC 2045 6.7: 76 octets."""
    out = seven(b"Subject: x\r\n\r\n" + b"\xe4" * 5000 + b"\r\n")
    assert max(map(len, out.split(b"\r\n"))) <= 76


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (b"Subject: x\r\n\r\nabc\r\n", (False, False)),
        (b"Subject: \xe4\r\n\r\nabc\r\n", (False, True)),
        (b"Subject: x\r\n\r\n\xe4\r\n", (True, False)),
        (b"\xe4 no header\r\n", (True, False)),
        (b"", (False, False)),
    ],
    ids=range(5),
)
@pytest.mark.parametrize("piece", [1, 1000])
def test_where_the_octets_are(message: bytes, found: tuple[bool, bool], piece: int) -> None:
    """In the body, in the header; however it is cut."""
    assert beyond_ascii([message[at : at + piece] for at in range(0, len(message), piece)]) == found


PIECES = st.lists(
    st.sampled_from(
        [
            b"Content-Type: multipart/mixed; boundary=b\r\n",
            b'Content-Type: multipart/x; boundary="b b"\r\n',
            b"Content-Type: message/rfc822\r\n",
            b"Content-Transfer-Encoding: 8bit\r\n",
            b"\r\n",
            b"--b\r\n",
            b"--b--\r\n",
            b"--b b\r\n",
            b"gr\xfc\xdfe\r\n",
            b"text = 1 \r\n",
            b"\xff",
        ]
    )
    | st.binary(max_size=4),
    max_size=30,
).map(b"".join)


@given(PIECES, st.integers(1, 20))
@settings(deadline=None, max_examples=300)
def test_any_octets(message: bytes, piece: int) -> None:
    """No exception, the same however it is cut, and the bodies in ASCII."""
    whole = seven(message)
    assert seven(message, piece=piece) == whole
    assert parts_beyond_ascii([whole]) == frozenset()
