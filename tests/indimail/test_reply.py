"""What becomes of the text that a plugin leaves in *mesg? Every form of it, without a plugin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.hooks.checks import check_answer
from forkd.hooks.spec import HOOKS
from forkd.rpc.calls import Answer, Verdict
from forkd.sandbox.indimail_reply import DEFAULT, MAX_OCTETS, MAX_TEXT, refusal
from tests.support.fake_host import Powers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"550 5.7.1 not from you\r\n", ("deny", 550, "5.7.1", "not from you")),
        (b"553 sorry (#5.7.1)\r\n", ("deny", 553, "5.7.1", "sorry (#5.7.1)")),
        (b"451 4.3.0 later\r\n", ("defer", 451, "4.3.0", "later")),
        (b"530 no line end", ("deny", 530, "5.7.1", "no line end")),
        (b"550 unix line end\n", ("deny", 550, "5.7.1", "unix line end")),
        (b"550 4.7.1 of another class", ("deny", 550, "5.7.1", "4.7.1 of another class")),
        (b"550-one\r\n550-two\r\n550 three\r\n", ("deny", 550, "5.7.1", "one two three")),
        (b"550 a\ttab", ("deny", 550, "5.7.1", "a tab")),
        ("550 für dich".encode(), ("deny", 550, "5.7.1", "für dich")),
        (b"421 4.7.0 go away\r\n", ("disconnect", 421, "4.7.0", "go away")),
        (b"550", ("deny", 550, "5.7.1", DEFAULT.text)),
        (b"451 \r\n", ("defer", 451, "4.7.1", DEFAULT.text)),
        (b"503 5.5.1 odd\r\n", ("deny", 550, "5.5.1", "odd")),
        (b"440 odd\r\n", ("defer", 451, "4.7.1", "odd")),
        (b"550 " + b"x" * 2000, ("deny", 550, "5.7.1", "x" * MAX_TEXT)),
    ],
)
def test_a_refusing_text_is_kept(text: bytes, expected: tuple[str, int, str, str]):
    """plugins.md: a missing CRLF is added, 421 also closes; the class of the code is always the plugin's."""
    assert refusal(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        None,
        b"",
        b"\r\n",
        b"250 ok\r\n",
        b"354 go on\r\n",
        b"650 what\r\n",
        b"not from you\r\n",
        b"55 no\r\n",
        b"550no\r\n",
        b"550-goes on\r\n",
        b"550 no\r\n250 ok\r\n",
        b"550 no\r\n550 no\r\n",
        b"550-no\r\n551 no\r\n",
        b"550 no\r\nMAIL FROM:<>\r\n",
        b"550 a\rb",
        b"550 a\x01b",
        b"550 a\x7fb",
        b"550 a\x1b[31m",
        b"550 \xff\xfe",
        "550 a\u2028b".encode(),
        b"550 " + b"x" * MAX_OCTETS,
        "\u0665\u0665\u0660 no".encode(),
    ],
)
def test_any_other_text_is_ours_and_refuses(text: bytes | None):
    """plugins.md: a code outside 4xx and 5xx, an unprintable octet, NULL: 550 5.7.1 with a text of ours."""
    assert refusal(text) == DEFAULT


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda rest: b"550 " + rest))
def test_what_comes_of_any_octets_may_be_sent(text: bytes):
    """Whatever a plugin leaves there, the worker takes what is made of it (hooks/checks.py)."""
    said = refusal(text)
    verdict = Verdict(do=said.do, code=said.code, enhanced=said.enhanced, text=said.text)
    for hook in ("mail", "rcpt", "data", "message"):
        check_answer(Answer(1, verdict=verdict), spec=HOOKS[hook], powers=Powers(), smtputf8=True)
