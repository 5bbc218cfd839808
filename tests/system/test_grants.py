"""A plugin without a grant: what it may not read is not hidden in its process, it never comes there."""

from __future__ import annotations

import pytest

from .conftest import Make


@pytest.mark.parametrize(("hook", "asked"), [("data", 2), ("message", 3)])
def test_mail_that_was_not_granted_does_not_reach_the_plugin(make_daemon: Make, hook: str, asked: int):
    """sandbox.md, "Calls": it looks at every octet it was sent, and finds none of that mail."""
    daemon = make_daemon(plugins={"10-prying.toml": 'plugin = "../prying"\n'}, copy=("prying",))
    client = daemon.smtp()
    client.ehlo(f"{hook}.example")
    client.mail("someone@example.org")
    client.rcpt("hidden-recipient@test.local")
    code, text = client.docmd("DATA")
    if hook == "message":
        assert code == 354
        client.send(b"Subject: hidden-subject\r\n\r\nhidden-body\r\n.\r\n")
        code, text = client.getreply()
    assert code == 550
    # It did look at something; then one NotGranted for each question.
    assert text.split() == [b"5.7.1", b"True", *[b"NotGranted"] * asked]
