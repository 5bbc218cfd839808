"""block_senders: its manual page, sentence by sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forkd.sdk.testing import assert_denied, assert_passed, load_plugin

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "plugins" / "block_senders"
SAMPLE = ROOT / "etc" / "plugins.d" / "block_senders.list"


def blocked(sender: str, *entries: str, **settings: Any) -> bool:
    session = load_plugin(FOLDER, settings={"senders": list(entries), **settings}).session()
    return session.mail(sender).verdict is not None


@pytest.mark.parametrize(
    ("entry", "yes", "no"),
    [
        ("user@example.com", ["USER@example.com"], ["other@example.com", "user@x.example"]),
        ("example.com", ["a@example.com"], ["a@x.example.com", "a@notexample.com", "a@com"]),
        ("@example.com", ["a@example.com"], ["a@x.example.com"]),
        ("*@example.com", ["a@example.com"], ["a@x.example.com"]),
        (".example.com", ["a@x.example.com", "a@y.x.example.com"], ["a@example.com", "a@xexample.com"]),
        ("*.example.com", ["a@x.example.com"], ["a@example.com"]),
        ("@.example.com", ["a@x.example.com"], ["a@example.com"]),
        ("*@*.example.com", ["a@x.example.com"], ["a@example.com"]),
        ("user@", ["user@example.com", "User@example.org"], ["user2@example.com", "xuser@example.com"]),
        ("user@*", ["user@example.com"], ["a@example.com"]),
        ("<>", [""], ["a@example.com"]),
        ("EXAMPLE.com.", ["a@example.com"], ["a@example.org"]),
        ("user+tag@example.com", ["user+tag@example.com"], ["user@example.com"]),
        ('"a b"@example.com'.replace(" ", "."), ["a.b@example.com"], ["a@example.com"]),
        ("[192.0.2.1]", ["a@[192.0.2.1]"], ["a@[192.0.2.2]"]),
        ("bücher.example", ["a@xn--bcher-kva.example"], ["a@bucher.example"]),
    ],
)  # fmt: skip
def test_entry_names_its_senders_and_no_others(entry: str, yes: list[str], no: list[str]):
    """DESCRIPTION: the forms of an entry."""
    assert [s for s in yes if not blocked(s, entry)] == []
    assert [s for s in no if blocked(s, entry)] == []


@pytest.mark.parametrize("entry", ["example.com", ".com", "user@", "*@example.com"])
def test_no_wildcard_names_the_null_sender(entry: str):
    """Bounces are refused only by <>."""
    assert not blocked("", entry)


def test_exception_wins_over_whatever_is_listed():
    """!ENTRY, wherever it stands."""
    entries = ("!good@mail.example.com", "example.com", ".example.com", "good@")
    assert not blocked("good@mail.example.com", *entries)
    assert blocked("bad@mail.example.com", *entries)
    assert blocked("good@example.com", *entries)


def test_refusal_is_550_with_the_admins_text():
    """550 5.7.1 and the setting `text`."""
    session = load_plugin(FOLDER, settings={"senders": ["example.com"], "text": "go away"}).session()
    answer = session.mail("a@example.com")
    assert_denied(answer, code=550, enhanced="5.7.1")
    assert answer.verdict is not None
    assert answer.verdict.text == "go away"


def test_sample_list_works():
    """The list that is in force without any configuration."""
    session = load_plugin(FOLDER, settings={"list": str(SAMPLE)}).session()
    for sender in ("blocked@example.org", "x@spam.example", "x@a.bulk.example", "unwanted@example.net"):
        assert_denied(session.mail(sender))
    for sender in ("", "a@example.org", "x@bulk.example", "postmaster@mail.bulk.example", "x@test.local"):
        assert_passed(session.mail(sender))


def test_list_and_setting_together(tmp_path: Path):
    """Entries come from the setting, from the file, or from both."""
    file = tmp_path / "list"
    file.write_bytes(
        b"\xef\xbb\xbf# head\r\n\r\n  a.example  # why\r\nuser#1@b.example\r\n\tc.example\t#\r\n"
    )
    settings = {"list": str(file)}
    assert all(
        blocked(s, "d.example", **settings)
        for s in ("x@a.example", "user#1@b.example", "x@c.example", "x@d.example")
    )


def test_bad_lines_stop_it_with_file_and_line(tmp_path: Path):
    """A typing error must not let mail through; every bad line is shown at once."""
    file = tmp_path / "list"
    file.write_text(
        "ok.example\nuser @example.com\n\n*\nex ample.com\n@\nuse*r@example.com\n-bad.example\na..b\n!\n"
    )
    with pytest.raises(ValueError, match="these are no senders") as error:
        load_plugin(FOLDER, settings={"list": str(file), "senders": ["ok.example", "a@b@"]})
    places = [line.partition(": ")[0] for line in str(error.value).splitlines()[1:]]
    assert places == [f"{file}:{n}" for n in (2, 4, 5, 6, 7, 8, 9, 10)]


def test_many_bad_lines_are_cut(tmp_path: Path):
    """Enough to repair a file, few enough to read."""
    file = tmp_path / "list"
    file.write_text("*\n" * 100)
    with pytest.raises(ValueError, match=r"\.\.\. and 80 more"):
        load_plugin(FOLDER, settings={"list": str(file)})


def test_octets_that_are_no_text(tmp_path: Path):
    """FILE: UTF-8."""
    file = tmp_path / "list"
    file.write_bytes(b"a.example\n\xff\n")
    with pytest.raises(ValueError, match=r"list:2: not UTF-8"):
        load_plugin(FOLDER, settings={"list": str(file)})


def test_missing_file_is_an_error(tmp_path: Path):
    """Never an empty list instead."""
    with pytest.raises(FileNotFoundError):
        load_plugin(FOLDER, settings={"list": str(tmp_path / "none")})


def test_wrong_text_is_found_at_start(tmp_path: Path):
    """Not at the first refusal."""
    with pytest.raises(ValueError, match="printable ASCII"):
        load_plugin(FOLDER, settings={"text": "two\nlines"})
