"""Paths, literals, names: what is taken, what is not, and what comes out."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.smtp import grammar, replies
from forkd.smtp.address import Mailbox

WRONG = replies.BAD_RECIPIENT
LABEL_63 = b"a" * 63


@pytest.mark.parametrize(
    ("text", "mailbox"),
    [
        (b"<>", None),
        (b"<a@b>", Mailbox("a", "b")),
        (b"<User.Name+tag@Example.ORG>", Mailbox("User.Name+tag", "example.org")),
        (b"<!#$%&'*+-/=?^_`{|}~@x.org>", Mailbox("!#$%&'*+-/=?^_`{|}~", "x.org")),
        (b"<a@1.2.3.4>", Mailbox("a", "1.2.3.4")),
        (b"<a@my_host.x.org>", Mailbox("a", "my_host.x.org")),
        (b"<a@" + LABEL_63 + b".org>", Mailbox("a", "a" * 63 + ".org")),
        (b"<" + b"l" * 65 + b"@x.org>", Mailbox("l" * 65, "x.org")),
        (b"<Postmaster>", Mailbox("Postmaster", "")),
        # quoted local parts (RFC 5321 4.1.2)
        (b'<"a b"@x.org>', Mailbox("a b", "x.org")),
        (b'<"plain"@x.org>', Mailbox("plain", "x.org")),
        (b'<"a\\"b\\\\c"@x.org>', Mailbox('a"b\\c', "x.org")),
        (b'<"a@b"@x.org>', Mailbox("a@b", "x.org")),
        (b'<"a>b"@x.org>', Mailbox("a>b", "x.org")),
        (b'<""@x.org>', Mailbox("", "x.org")),
        # source routes (RFC 5321 appendix C)
        (b"<@relay.org:a@x.org>", Mailbox("a", "x.org")),
        (b"<@r1.org,@r2.org:a@x.org>", Mailbox("a", "x.org")),
        # literals (RFC 5321 4.1.3)
        (b"<a@[192.0.2.1]>", Mailbox("a", "[192.0.2.1]")),
        (b"<a@[ipv6:2001:DB8:0::1]>", Mailbox("a", "[IPv6:2001:db8::1]")),
    ],
)
def test_a_path_gives_its_mailbox(text: bytes, mailbox: Mailbox | None) -> None:
    """RFC 5321 4.1.2; what follows the bracket is left alone."""
    assert grammar.path(text + b" SIZE=1", WRONG) == (mailbox, b" SIZE=1")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<",
        b"a@b",
        b"<a@b",
        b"a@b>",
        b"< a@b>",
        b"<a@b >",
        b"<@>",
        b"<a@>",
        b"<@b>",
        b"<.a@b>",
        b"<a.@b>",
        b"<a..c@b>",
        b"<a@.b>",
        b"<a@b.>",
        b"<a@b..c>",
        b"<a@-b>",
        b"<a@b->",
        b"<a@b@c>",
        b"<a b@c>",
        b"<a\tb@c>",
        b"<a(comment)@b>",
        b"<a@" + LABEL_63 + b"a.org>",
        b'<"a@b>',
        b'<a"b"@c>',
        b'<"a"b@c>',
        b'<"a\\"@c>',
        b'<"a\rb"@c>',
        b"<a\0@b>",
        b"<@relay.org a@x.org>",
        b"<@relay.org:>",
        b"<@r1,r2:a@b>",
        b"<a@[192.0.2.256]>",
        b"<a@[192.0.2]>",
        b"<a@[192.0.02.1]>",
        b"<a@[2001:db8::1]>",
        b"<a@[IPv6:2001:db8::g]>",
        b"<a@[IPv6:fe80::1%eth0]>",
        b"<a@[x-tag:data]>",
        b"<a@[]>",
        b"<a@[192.0.2.1>",
        b"<a@" + b"a." * 127 + b"aa>",
    ],
)
def test_a_bad_path_has_the_reply_for_bad_syntax(text: bytes) -> None:
    """Nothing is guessed: 501 (RFC 5321 4.1.2)."""
    result = grammar.path(text, WRONG)
    assert result in (WRONG, replies.ADDRESS_TOO_LONG)


def test_a_path_has_256_octets_at_most() -> None:
    """With its brackets, and without the spaces before it (RFC 5321 4.5.3.1.3)."""
    longest = b"<" + b"l" * (256 - len("<@x.org>")) + b"@x.org>"
    assert isinstance(grammar.path(longest, WRONG), tuple)
    assert isinstance(grammar.path(b"   " + longest, WRONG), tuple)
    assert grammar.path(longest.replace(b"<", b"<l"), WRONG) is replies.ADDRESS_TOO_LONG


@pytest.mark.parametrize(
    ("text", "mailbox"),
    [
        ("<é@x.org>", Mailbox("é", "x.org")),
        ("<用户@例子.example>", Mailbox("用户", "例子.example")),
        ("<a@BÜCHER.Example>", Mailbox("a", "bücher.example")),
        ("<a@bu\u0308cher.example>", Mailbox("a", "bücher.example")),
        ('<"é \\" x"@x.org>', Mailbox('é " x', "x.org")),
        ("<é@[192.0.2.1]>", Mailbox("é", "[192.0.2.1]")),
        ("<@relay.org:é@x.org>", Mailbox("é", "x.org")),
        ("<e\u0301@x.org>", Mailbox("e\u0301", "x.org")),
    ],
)
def test_a_path_may_be_utf8(text: str, mailbox: Mailbox) -> None:
    """RFC 6531 3.3: local parts as written, domains in U-labels, composed and in lower case."""
    assert grammar.path(text.encode() + b" SMTPUTF8", WRONG) == (mailbox, b" SMTPUTF8")


@pytest.mark.parametrize(
    "text",
    [
        b"<\xff@x.org>",
        b"<\xe9@x.org>",
        b"<\xc3\xa9@>",
        b"<\xed\xa0\x80@x.org>",
        "<\x85@x.org>".encode(),
        "<a\u2028b@x.org>".encode(),
        "<a@\u2603\ufe0f.example>".encode(),
        "<a@ü..example>".encode(),
        "<a@-ü.example>".encode(),
        "<é@x@y>".encode(),
        "<a b@é.example>".encode(),
        ("<a@" + "ü" * 63 + ".example>").encode(),
        "<é@[IPv6:nothing]>".encode(),
    ],
)
def test_bad_utf8_and_bad_labels_are_bad_syntax(text: bytes) -> None:
    """No controls, no line separators, no domain that IDNA 2008 does not have (RFC 6531 3.3, RFC 5891)."""
    assert grammar.path(text, WRONG) is WRONG


def test_the_length_of_a_utf8_path_is_that_of_its_octets() -> None:
    """256, brackets included (RFC 6531 3.1, RFC 5321 4.5.3.1.3)."""
    assert isinstance(grammar.path(f"<{'é' * 124}@x.org>".encode(), WRONG), tuple)
    assert grammar.path(f"<{'é' * 125}@x.org>".encode(), WRONG) is replies.ADDRESS_TOO_LONG


@pytest.mark.parametrize(
    "text", [b"<a@b>", b'<"a b"@c>', b'<"\\"\\\\"@c>', b'<""@c>', b"<a@[IPv6:::1]>", b"<postmaster>"]
)
def test_a_mailbox_as_text_is_its_path_again(text: bytes) -> None:
    """str() quotes what must be quoted, so that it can be parsed again (RFC 5321 4.1.2)."""
    parsed = grammar.path(text, WRONG)
    assert isinstance(parsed, tuple)
    assert grammar.path(f"<{parsed[0]}>".encode(), WRONG) == parsed


@given(st.text(alphabet=[chr(c) for c in range(0x20, 0x7F)], max_size=40))
def test_any_printable_local_part_survives_quoting(local: str) -> None:
    """Mailbox -> text -> Mailbox loses nothing."""
    mailbox = Mailbox(local, "x.org")
    assert grammar.path(f"<{mailbox}>".encode(), WRONG) == (mailbox, b"")


@given(
    st.binary(max_size=80)
    | st.text(alphabet='<>@."\\[]:, aA1-%!éß٠ׁ例', max_size=80).map(str.encode)
    | st.text(max_size=40).map(lambda text: f"<a@{text}>".encode("utf-8", "replace"))
)
def test_any_octets_are_a_path_or_a_reply(text: bytes) -> None:
    """Total: no octets raise."""
    result = grammar.path(text, WRONG)
    assert result in (WRONG, replies.ADDRESS_TOO_LONG) or isinstance(result, tuple)
    grammar.hello_name(text)
    grammar.printable_utf8(text)
    grammar.printable(text)


@pytest.mark.parametrize(
    "text",
    [
        b"<" + b"a" * 200_000,
        b"<" + b"a." * 100_000,
        b"<" + b"a@" * 100_000,
        b"<@" + b"a,@" * 70_000,
        b'<"' + b"\\\\" * 100_000,
        b"<a@" + b"a-" * 100_000,
        b"<a@[" + b"1" * 200_000,
        b" " * 200_000,
        "<é".encode() + b"a." * 100_000 + b">",
        b"<a@" + "é".encode() * 100_000 + b">",
        b'<"\xc3\xa9' + b"\\\\" * 100_000 + b">",
    ],
)
def test_a_hostile_path_costs_no_more_than_its_length(text: bytes) -> None:
    """No pattern runs back and forth: 200 KB in milliseconds, where a quadratic one takes a minute."""
    began = time.process_time()
    grammar.path(text, WRONG)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "name",
    [
        b"mx.example.org",
        b"localhost",
        b"my_host",
        b"WIN-PC",
        b"bob's+mary's-pc",
        b"a!#$%&'*+/=?^`{|}~b",
        b"[192.0.2.1]",
        b"[IPv6:::1]",
        b"::1",
        b"a" * 255,
    ],
)
def test_a_plausible_name_is_taken_as_written(name: bytes) -> None:
    """RFC 5321 4.1.4: mail is not refused over the name, so the grammar is wider than 4.1.1.1."""
    assert grammar.hello_name(name) == name.decode()


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"a b",
        b"-a",
        b".a",
        b"'a",
        b"a@b",
        b"a(b)",
        b'a"b',
        b"a;b",
        b"a\\b",
        b"a,b",
        b"a\0",
        b"a\tb",
        b"a\xc3\xa9",
        b"<a>",
        b"[a",
        b"[a b]",
        b"a" * 256,
    ],
)
def test_a_name_that_is_none_is_refused(name: bytes) -> None:
    """What is not fit for a trace header is no name (RFC 5321 4.1.1.1)."""
    assert grammar.hello_name(name) is None
