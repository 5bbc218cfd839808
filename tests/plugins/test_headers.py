"""headers: its manual page, sentence by sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forkd.sdk import add_header, delete_header
from forkd.sdk.testing import Answer, assert_denied, assert_passed, load_plugin

FOLDER = Path(__file__).parent.parent.parent / "plugins" / "headers"
GOOD = "From: a@example.org\nDate: Mon, 2 Nov 2026 10:00:00 +0000\nSubject: hello\nX-Mailer: any\n"


def ask(header: str, **settings: Any) -> Answer:
    session = load_plugin(FOLDER, settings=settings).session()
    message = f"{header}\nbody\nSubject: not a header\n"
    return session.deliver(message, sender="a@example.org", recipients=["user@test.local"])


def test_without_settings_it_has_no_opinion():
    answer = ask(GOOD)
    assert_passed(answer)
    assert not answer.edits


@pytest.mark.parametrize(
    ("rule", "yes", "no"),
    [
        ("Subject: *casino*", ["Subject: Big CASINO win", "subject: casino"], ["Subject: cas ino"]),
        ("Subject: casino", ["Subject: Casino"], ["Subject: casino royale"]),
        ("Subject: c?sino", ["Subject: cAsino"], ["Subject: csino"]),
        ("Subject: /win [0-9]+/", ["Subject: you WIN 100 now"], ["Subject: win all"]),
        ("Subject: /^win$/", ["Subject: Win"], ["Subject: win it"]),
        ("X-Bad:", ["X-Bad: anything", "X-Bad:"], ["X-Good: X-Bad:"]),
        ("X-Bulk-*: yes", ["X-Bulk-Run: yes"], ["X-Bulk: yes", "X-Bulk-Run: no"]),
        ("*: */*", ["X: a/b"], ["X: ab"]),
        ("Subject: *a*\t", ["Subject: bab"], ["Subject: b"]),
    ],
)  # fmt: skip
def test_a_rule_names_its_fields_and_no_others(rule: str, yes: list[str], no: list[str]):
    """RULES: each form."""
    for header in yes:
        assert_denied(ask(f"{header}\n", refuse=[rule]), code=550, enhanced="5.7.1")
    for header in no:
        assert_passed(ask(f"{header}\n", refuse=[rule]))


def test_values_are_looked_at_unfolded_and_decoded():
    """RFC 5322 2.2.3, RFC 2047: encoding hides nothing."""
    assert_denied(ask("Subject: big\n casino\n", refuse=["Subject: big casino"]))
    assert_denied(ask("Subject: =?utf-8?B?Y2FzaW5v?=\n", refuse=["Subject: casino"]))
    assert_denied(ask("Subject: =?utf-8?B?Y2FzaW5v?=\n", refuse=["Subject: =[?]utf-8*"]))


def test_what_the_client_is_told():
    """A rule's own text, else the setting's."""
    told = [
        ask("Subject: x\n", refuse=["Subject: x => go away"]),
        ask("Subject: x\n", refuse=["Subject: x"], text="no"),
    ]
    assert [answer.verdict.text for answer in told if answer.verdict] == ["go away", "no"]


def test_rules_in_files(tmp_path: Path):
    """One a line; a bad line stops the start with its number."""
    file = tmp_path / "rules"
    file.write_text("# no bulk\nX-Bulk: yes => no bulk   # here\n\nSubject: /a b/\n")
    answer = ask("X-Bulk: YES\n", rules=[str(file)])
    assert answer.verdict is not None
    assert answer.verdict.text == "no bulk"
    assert_denied(ask("Subject: a b\n", rules=[str(file)]))
    file.write_text("X-Ok: yes\nnonsense\nSu bject: x\nSubject: /(/\nX: y => \x7f\nSu*ject: x\n")
    with pytest.raises(ValueError, match="these are no rules") as error:
        load_plugin(FOLDER, settings={"rules": [str(file)]})
    places = [line.partition(": ")[0] for line in str(error.value).splitlines()[1:]]
    assert places == [f"{file}:{n}" for n in (2, 3, 4, 5, 6)]


def test_required_fields():
    """RFC 5322 3.6: a missing one is told by name."""
    assert_passed(ask(GOOD, require=["From", "date"]))
    answer = ask(GOOD, require=["From", "Message-ID"])
    assert_denied(answer, code=550, enhanced="5.6.0")
    assert answer.verdict is not None
    assert "Message-ID" in answer.verdict.text


def test_fields_that_may_be_there_once():
    """RFC 5322 3.6: what a second one says is taken by some readers and not by others."""
    assert_denied(ask(f"{GOOD}FROM: b@example.org\n", once=["From"]), enhanced="5.6.0")
    assert_passed(ask(GOOD, once=["From", "Cc"]))


@pytest.mark.parametrize(
    ("setting", "size"),
    [
        ("max_fields", 4),
        ("max_field", max(len(line) + 2 for line in GOOD.splitlines())),
        ("max_header", len(GOOD.replace("\n", "\r\n"))),
    ],
)
def test_limits(setting: str, size: int):
    """Counts and sizes: 552 5.3.4 beyond, saying the limit; the body counts for nothing."""
    assert_passed(ask(GOOD, **{setting: size}))
    answer = ask(GOOD, **{setting: size - 1})
    assert_denied(answer, code=552, enhanced="5.3.4")
    assert answer.verdict is not None
    assert str(size - 1) in answer.verdict.text


def test_fields_are_added_and_removed():
    """Checks first; every field of a removed name goes."""
    header = f"{GOOD}X-Internal-A: 1\nx-internal-a: 2\nX-Internal-B: 3\n"
    answer = ask(header, remove=["X-Internal-*", "X-Gone"], add=["X-Checked: yes", "X-Two: a: b"])
    assert list(answer.edits) == [
        delete_header("X-Internal-A"),
        delete_header("X-Internal-B"),
        add_header("X-Checked", "yes"),
        add_header("X-Two", "a: b"),
    ]
    assert_denied(ask(header, add=["X-Checked: yes"], require=["X-None"]))


@pytest.mark.parametrize(
    "settings",
    [{"add": ["no field"]}, {"add": ["X:"]}, {"add": ["X y: z"]}, {"remove": ["a b"]}, {"remove": ["*x"]},
     {"require": ["X-*"]}, {"once": [""]}, {"refuse": ["no rule"]}, {"refuse": ["X: /(/"]},
     {"text": ""}, {"max_fields": -1}, {"max_field": -1}, {"max_header": -1}],
)  # fmt: skip
def test_bad_settings_stop_the_start(settings: dict[str, Any]):
    """A typing error must not let mail through, and the error names the setting."""
    [name] = settings
    with pytest.raises(ValueError, match=rf"setting {name}\b.*: \S"):
        load_plugin(FOLDER, settings=settings)


def test_more_to_remove_than_forkd_takes_is_refused():
    """A stranger's message cannot make the plugin fail: 256 edits of one header is forkd's bound."""
    many = GOOD + "".join(f"X-Internal-{number}: 1\n" for number in range(256))
    assert_passed(ask(many, remove=["X-Internal-*"]))
    assert_denied(ask(f"{many}X-Internal-More: 1\n", remove=["X-Internal-*"]), code=552, enhanced="5.3.4")
