"""filter: its manual page, sentence by sentence."""

from __future__ import annotations

import email
import email.message
import email.policy
from pathlib import Path
from typing import Any

import pytest

from forkd.sdk import add_header
from forkd.sdk.edits import ReplaceBody
from forkd.sdk.testing import Answer, assert_passed, load_plugin

FOLDER = Path(__file__).parent.parent.parent / "plugins" / "filter"
RULES = ["card-[0-9]{4} => [removed]", r"(?i)project (\w+)-x => project \1"]


def ask(message: bytes, *, replace: list[str] | None = None, **settings: Any) -> Answer:
    session = load_plugin(FOLDER, settings={"replace": replace or RULES, **settings}).session()
    return session.deliver(message, sender="a@example.org", recipients=["user@test.local"])


def new_body(message: bytes, **settings: Any) -> bytes | None:
    answer = ask(message, **settings)
    assert_passed(answer)
    return next((edit.body for edit in answer.edits if isinstance(edit, ReplaceBody)), None)


def filtered(message: bytes, **settings: Any) -> email.message.EmailMessage | None:
    """The message with its new body, read as a mail reader does; None where nothing was changed."""
    body = new_body(message, **settings)
    if body is None:
        return None
    head = message.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    return email.message_from_bytes(head + b"\n\n" + body, policy=email.policy.default)


def text(message: email.message.EmailMessage | None) -> str:
    assert message is not None
    body = message.get_body(("plain", "html"))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("charset", "encoding"),
    [
        ("utf-8", "8bit"),
        ("utf-8", "base64"),
        ("utf-8", "quoted-printable"),
        ("iso-8859-1", "8bit"),
        ("us-ascii", "7bit"),
    ],
)
def test_text_is_replaced_in_its_charset_and_encoding(charset: str, encoding: str):
    """Parts keep their charset and their transfer encoding."""
    original = email.message.EmailMessage()
    line = "pay card-1234 now" if charset == "us-ascii" else "zahle card-1234 für ProJect ü1-X"
    original.set_content(f"{line}\nsecond line\n", charset=charset, cte=encoding)
    found = filtered(original.as_bytes())
    assert text(found) == f"{line}\nsecond line\n".replace("card-1234", "[removed]").replace(
        "ProJect ü1-X", "project ü1"
    )
    assert found is not None
    assert found["Content-Transfer-Encoding"] == encoding


def test_a_message_in_which_nothing_is_found_is_not_touched():
    assert filtered(b"Subject: card-1234\r\n\r\nhello\r\n") is None


def test_only_texts_are_looked_at():
    """Other parts come out octet by octet; `types` says which are texts."""
    message = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\n\r\ncard-1111\r\n--b\r\n"
        b"Content-Type: application/x\r\n\r\ncard-2222\r\n--b\r\n"
        b"Content-Type: text/html\r\n\r\ncard-3333\r\n--b--\r\n"
    )
    body = message.partition(b"\r\n\r\n")[2]
    assert new_body(message) == body.replace(b"card-1111", b"[removed]").replace(b"card-3333", b"[removed]")
    assert new_body(message, types=["text/html"]) == body.replace(b"card-3333", b"[removed]")


def test_lines_end_in_lf_for_the_patterns_and_in_crlf_on_the_wire():
    rules = [r"(?m)^line$ => found"]
    assert new_body(b"\r\nline\r\nline\r\n", replace=rules) == b"found\r\nfound\r\n"


def test_a_sign_that_the_charset_lacks_becomes_a_question_mark():
    message = b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\na\xe4b\r\n"
    assert new_body(message, replace=["b => €"]) == b"a\xe4?\r\n"


@pytest.mark.parametrize("charset", ["nonsense", "hex", "idna"])
def test_an_unknown_charset_is_left_alone(charset: str):
    assert filtered(f"Content-Type: text/plain; charset={charset}\r\n\r\ncard-1234\r\n".encode()) is None


def test_octets_that_are_no_text_come_out_as_they_went_in():
    message = b"Content-Type: text/plain; charset=utf-8\r\n\r\n\xff card-1234 \xc3\xa4\r\n"
    assert new_body(message) == b"\xff [removed] \xc3\xa4\r\n"


def test_it_says_how_much_was_replaced():
    """X-Filtered, unless header = false."""
    message = b"\r\ncard-1111 card-2222\r\n"
    assert add_header("X-Filtered", "replacements=2") in ask(message).edits
    assert len(ask(message, header=False).edits) == 1


@pytest.mark.parametrize("rule", ["no arrow", "=> x", "( => x", r"(a) => \2"])
def test_a_bad_rule_stops_the_start(rule: str):
    with pytest.raises(ValueError, match=r"setting replace: .* is no rule"):
        load_plugin(FOLDER, settings={"replace": [rule]})


@pytest.mark.parametrize(
    "types", [[], ["text"], ["text/*"], ["text/plain; charset=utf-8"], ["multipart/mixed"]]
)
def test_types_that_no_text_has_stop_the_start(types: list[str]):
    """They would never match, and nothing would be replaced."""
    with pytest.raises(ValueError, match="setting types: "):
        load_plugin(FOLDER, settings={"replace": RULES, "types": types})


def test_no_rules_at_all_stop_the_start():
    with pytest.raises(ValueError, match="setting replace: an empty list"):
        load_plugin(FOLDER, settings={"replace": []})
