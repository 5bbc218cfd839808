"""qmail_lists: its manual page, sentence by sentence. What qmail-smtpd does was read off IndiMail's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forkd.sdk.testing import assert_denied, assert_passed, load_plugin
from tests.support.cdb import cdb

FOLDER = Path(__file__).parent.parent.parent / "plugins" / "qmail_lists"


def plugin(**settings: Any):
    return load_plugin(FOLDER, settings=settings)


def listed(address: str, *lines: str, regex: bool = False) -> bool:
    return plugin(senders=list(lines), regex=regex).session().mail(address).verdict is not None


@pytest.mark.parametrize(
    ("lines", "yes", "no"),
    [
        (["User@Example.com"], ["user@example.COM"], ["user@x.example.com", "xuser@example.com"]),
        (["@example.com"], ["a@example.com", '"a b"@example.com'], ["a@x.example.com", "a@com"]),
        (["*@example.net"], ["a@example.net"], ["a@x.example.net", ""]),
        (["*@*.example.com"], ["a@b.c.example.com"], ["a@example.com"]),
        (["answerme@save*"], ["answerme@save.example"], ["xanswerme@save.example"]),
        (["[0-9][0-9]@[^a-m]?.example"], ["12@no.example"], ["12@an.example", "1@no.example"]),
        (["*%*"], ["a%b@example.com"], ["a@example.com"]),
        ([r"a\*@example.com"], ["a*@example.com"], ["ab@example.com"]),
        (["*@example.net", "!fred@example.net"], ["a@example.net"], ["Fred@example.net"]),
        (["!fred@example.net", "*@example.net"], ["fred@example.net"], []),
        (["*@a.example", "!*", "b@*"], ["b@a.example"], ["a@a.example"]),
        (["fred@example.net", "!*"], ["fred@example.net"], []),
        (["*"], [""], []),
        (["@bücher.example"], ["a@xn--bcher-kva.example"], ["a@bucher.example"]),
        (["*a*b*c@x.example"], ["abc@x.example", "zaxbxc@x.example", "abababc@x.example"], ["acb@x.example"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_lines(lines: list[str], yes: list[str], no: list[str]):
    """LINES: addresses, domains, wildcards over the whole address, exceptions; the last one counts."""
    assert [address for address in yes if not listed(address, *lines)] == []
    assert [address for address in no if listed(address, *lines)] == []


@pytest.mark.parametrize(
    ("lines", "yes", "no"),
    [
        ([".*spam.*"], ["SPAM@example.com", "a@nospam.example"], ["a@example.com"]),
        (["@example\\.com$"], ["a@example.com"], ["a@example.com.test"]),
        (["!@"], [], ["user@example.com"]),
        (["!@", "^x"], ["x@example.com"], ["user@example.com"]),
        (["^[[:digit:]]+@"], ["123@example.com"], ["a123@example.com"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_regular_expressions(lines: list[str], yes: list[str], no: list[str]):
    """LINES, with regex: any that matches, or with ! in front does not, refuses."""
    assert [address for address in yes if not listed(address, *lines, regex=True)] == []
    assert [address for address in no if listed(address, *lines, regex=True)] == []


def test_replies_are_qmails():
    """553 5.7.1, as qmail-smtpd says it."""
    session = plugin(senders=["@spam.example"], recipients=["old@test.local"]).session()
    answer = session.mail("a@spam.example")
    assert_denied(answer, enhanced="5.7.1", code=553)
    assert_passed(session.mail("a@example.com"))
    assert_denied(session.rcpt("old@test.local"), enhanced="5.7.1", code=553)


def test_goodrcptto_exempts_from_badrcptto():
    """A whole domain is closed, but for its postmaster."""
    session = plugin(recipients=["@test.local", "x@y.example"], exempt=["postmaster@*"]).session()
    assert_denied(session.rcpt("a@test.local"))
    assert_passed(session.rcpt("Postmaster@test.local"))
    assert_passed(session.rcpt("a@y.example"))


def test_files_are_read_as_qmail_reads_them(tmp_path: Path):
    """FILES: comments in the first column only, blanks at the end, CRLF, no line end at the end; .cdb too."""
    text, compiled = tmp_path / "badmailfrom", tmp_path / "badmailfrom.cdb"
    text.write_bytes(b"# spam\r\n\r\n@spam.example \t\r\na#b@example.com\r\n*@last.example")
    compiled.write_bytes(cdb("@cdb.example", ("one@example.org", "x"), "*@wild.example"))
    session = plugin(sender_lists=[str(text), str(compiled)]).session()
    refused = ["a@spam.example", "a#b@example.com", "x@last.example", "a@cdb.example", "one@example.org"]
    assert [address for address in refused if session.mail(address).verdict is None] == []
    assert_passed(session.mail("a@wild.example"))


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"ok@example.com\nexample.com\n", r"list:2: 'example\.com': no @: write @example\.com"),
        (b"a b@example.com\n", "without spaces"),
        (b"@\xfcber.example\n", "list:1: not UTF-8"),
        (b"*@[a\n", r"\[ without its \]"),
        (b"!\n", "nothing behind it"),
    ],
    ids=["no @", "blank", "Latin-1", "[", "!"],
)
def test_a_line_that_means_nothing_stops_the_start(tmp_path: Path, octets: bytes, why: str):
    """A typing error must not let mail through."""
    (tmp_path / "list").write_bytes(octets)
    with pytest.raises(ValueError, match=why):
        plugin(sender_lists=[str(tmp_path / "list")])


def test_a_broken_cdb_stops_the_start(tmp_path: Path):
    """So does half of one."""
    (tmp_path / "x.cdb").write_bytes(cdb("@a.example")[:-1])
    with pytest.raises(ValueError, match=r"x\.cdb: this is no cdb file"):
        plugin(recipient_lists=[str(tmp_path / "x.cdb")])
