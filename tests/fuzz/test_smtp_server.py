"""A short run of the engine's fuzz target: its corpus, the dialogs, and what hypothesis makes up."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.smtp_server import one_input
from tests.support.dialog import Say, load

CORPUS = sorted((Path(__file__).parent / "corpus" / "smtp_server").iterdir())
DIALOGS = sorted((Path(__file__).parent.parent / "dialogs").glob("*.txt"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_corpus_holds(path: Path) -> None:
    """Each file was once a reason to think."""
    one_input(path.read_bytes())


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
def test_the_clients_side_of_every_dialog_holds(path: Path) -> None:
    """The rules of the standard are good seeds: each with every choice of options."""
    speech = b"".join(step.octets for step in load(path).steps if isinstance(step, Say))
    for switches in range(0, 64, 5 if len(speech) < 2000 else 21):
        one_input(bytes([switches, switches]) + speech)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=400)
    | st.lists(
        st.sampled_from(
            [
                b"\0\0",
                b"EHLO a\r\n",
                b"MAIL FROM:<>\r\n",
                b"RCPT TO:<a@b>\r\n",
                b"DATA\r\n",
                b"\r\n.\r\n",
                b".",
                b"\x38\1EHLO refuse\r\n",
                b"BDAT 5\r\n\r\n.\r\n",
                b"BDAT 0 LAST\r\n",
                b"BDAT 4 LAST\r\n",
                b"AUTH PLAIN\r\n",
                b"AUTH PLAIN AGEAYg==\r\n",
                b"*\r\n",
                b"XCLIENT NAME=a\r\n",
                b"MAIL FROM:<\xc3\xa9@b> SMTPUTF8\r\n",
            ]
        )
        | st.binary(max_size=5)
    ).map(b"".join)
)
def test_what_hypothesis_makes_up_holds(data: bytes) -> None:
    """A taste of a long run."""
    one_input(data)
