"""recipients: its manual page, sentence by sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forkd.sdk.testing import assert_denied, assert_passed, load_plugin

FOLDER = Path(__file__).parent.parent.parent / "plugins" / "recipients"


def refused(recipient: str, *entries: str, **settings: Any) -> bool:
    session = load_plugin(FOLDER, settings={"recipients": list(entries), **settings}).session()
    session.mail("a@example.org")
    return session.rcpt(recipient).verdict is not None


@pytest.mark.parametrize(
    ("entry", "exist", "missing"),
    [
        ("user@example.com", ["USER@example.com", "user@EXAMPLE.com"], ["other@example.com"]),
        ("@example.com", ["a@example.com", "b.c@example.com"], []),
        ("*@example.com", ["a@example.com"], []),
        ("sales-*@example.com", ["sales-@example.com", "Sales-eu@example.com"], ["sales@example.com"]),
        ("sales-*@example.com", [], ["xsales-eu@example.com"]),
        ("a?c@example.com", ["abc@example.com"], ["ac@example.com", "abbc@example.com"]),
        ("a.c@example.com", ["a.c@example.com"], ["abc@example.com"]),
        ("/team-[0-9]+/@example.com", ["team-1@example.com", "TEAM-42@example.com"], ["team-@example.com"]),
        ("/team-[0-9]+/@example.com", [], ["team-1x@example.com", "xteam-1@example.com"]),
        ("user@.example.com", ["user@a.example.com", "user@b.a.example.com"], ["x@a.example.com"]),
        ('"a*b"@example.com', ["a*b@example.com"], ["axb@example.com"]),
        ("user@bücher.example", ["user@xn--bcher-kva.example"], ["x@xn--bcher-kva.example"]),
        ("user@[192.0.2.1]", ["user@[192.0.2.1]"], ["x@[192.0.2.1]"]),
    ],
)  # fmt: skip
def test_entry_names_its_mailboxes_and_no_others(entry: str, exist: list[str], missing: list[str]):
    """ENTRIES: each form; a domain that some entry names is complete."""
    assert [r for r in exist if refused(r, entry)] == []
    assert [r for r in missing if not refused(r, entry)] == []


@pytest.mark.parametrize("recipient", ["a@example.org", "a@sub.example.com", "a@xexample.com", "a@com"])
def test_other_domains_have_no_opinion(recipient: str):
    """About all other domains it has no opinion."""
    assert not refused(recipient, "user@example.com")


def test_sub_domain_entry_leaves_the_domain_itself_alone():
    """user@.example.com: the domain itself not."""
    assert not refused("x@example.com", "user@.example.com")


def test_an_exception_wins_over_whatever_is_listed():
    """!ENTRY, wherever it stands, also against a wildcard, also where nothing else names the domain."""
    entries = ("!gone@example.com", "@example.com", "!old-*@other.example")
    assert refused("gone@example.com", *entries)
    assert refused("gone+detail@example.com", *entries)
    assert not refused("here@example.com", *entries)
    assert refused("old-1@other.example", *entries)
    assert not refused("new@other.example", *entries)


def test_detail_is_looked_up_whole_and_then_without():
    """user+detail exists when user does; a listed c++ is not taken for c."""
    assert not refused("user+list@example.com", "user@example.com")
    assert not refused("c++@example.com", "c++@example.com")
    assert refused("c+x@example.com", "c++@example.com")
    assert refused("+x@example.com", "x@example.com")
    assert refused("user+list@example.com", "user@example.com", detail="")
    assert not refused("user-list@example.com", "user@example.com", detail="-")


def test_postmaster_exists_everywhere():
    """RFC 5321 4.5.1."""
    assert not refused("Postmaster@example.com", "user@example.com", "!postmaster@example.com")


def test_refusal_is_550_with_the_admins_text():
    """550 5.1.1 and the setting `text`."""
    settings = {"recipients": ["u@example.com"], "text": "who is that?"}
    session = load_plugin(FOLDER, settings=settings).session()
    answer = session.rcpt("x@example.com")
    assert_denied(answer, code=550, enhanced="5.1.1")
    assert answer.verdict is not None
    assert answer.verdict.text == "who is that?"


def test_files_with_sections(tmp_path: Path):
    """FILE and [example.com]: a section ends with its file; entries with an @ stand for themselves."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(
        "# users\n[Example.com]\nann\nsales-*   # all of them\n!closed\nx@example.net\n\n[empty.example]\n"
    )
    two.write_text("bob@example.org\n")
    session = load_plugin(FOLDER, settings={"lists": [str(one), str(two)]}).session()
    for good in ("ann@example.com", "sales-1@example.com", "x@example.net", "bob@example.org"):
        assert_passed(session.rcpt(good))
    for bad in ("closed@example.com", "bob@example.com", "y@example.net", "any@empty.example"):
        assert_denied(session.rcpt(bad))


def test_bad_lines_stop_it_with_file_and_line(tmp_path: Path):
    """A typing error must not lose mail; every bad line is shown at once."""
    file = tmp_path / "list"
    file.write_text("ok@a.example\nann\n[exa mple]\n/(/@a.example\nx y@a.example\na@\n!\na@b..c\n")
    with pytest.raises(ValueError, match="these are no recipients") as error:
        load_plugin(FOLDER, settings={"lists": [str(file)]})
    places = [line.partition(": ")[0] for line in str(error.value).splitlines()[1:]]
    assert places == [f"{file}:{n}" for n in range(2, 9)]


def test_missing_file_is_an_error(tmp_path: Path):
    """Never an empty list instead."""
    with pytest.raises(OSError, match="gone"):
        load_plugin(FOLDER, settings={"lists": [str(tmp_path / "gone")]})


def test_nothing_listed_refuses_nobody():
    """Without entries there is no domain to speak about."""
    assert not refused("a@example.com")


@pytest.mark.parametrize(
    "settings",
    [{"detail": "+-"}, {"detail": "a"}, {"detail": " "}, {"detail": "@"}, {"text": "two\nlines"},
     {"recipients": ["nobody"]}],
)  # fmt: skip
def test_bad_settings_stop_the_start(settings: dict[str, Any]):
    """The error names the setting."""
    [name] = settings
    with pytest.raises(ValueError, match=rf"setting {name}\b.*: \S"):
        load_plugin(FOLDER, settings=settings)


@pytest.mark.parametrize("detail", ["", "+", "-", "=", "."])
def test_signs_of_a_detail(detail: str):
    assert load_plugin(FOLDER, settings={"detail": detail})
