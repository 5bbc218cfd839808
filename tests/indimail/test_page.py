"""plugins/INDIMAIL.md: what it says of compiled plugins is so, and each row of its last table has a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forkd.kit.stage import NotStarted
from forkd.sandbox.indimail import environment
from tests.indimail.compiling import compiled
from tests.indimail.test_abi import tried

TESTS = Path(__file__).parent.parent


def test_no_memory_of_a_file_becomes_executable(tmp_path: Path):
    """Neither its stack nor code that the loader would have to change: the start says so."""
    with pytest.raises(NotStarted, match="cannot be loaded: cannot enable executable stack"):
        tried(tmp_path, compiled("template", "-z", "execstack"))
    with pytest.raises(NotStarted, match="cannot be loaded: cannot make segment writable for relocation"):
        tried(tmp_path, compiled("template", "-fno-pic", "-mcmodel=large", "-Wl,-z,notext"))


@pytest.mark.parametrize("facts", [{"user": "joe"}, {"client_certificate": "CN=joe"}, {}], ids=str)
def test_who_is_authenticated(facts: dict[str, str]):
    """By AUTH, or by a certificate that was verified; else the variable is not there."""
    assert environment(facts, {}).get("AUTHENTICATED") == ("1" if facts else None)


CONTRAST = "indimail/test_contrast.py::"
SHOWN = {
    "MAIL A accepted, MAIL B": CONTRAST + "test_a_refused_sender_never_becomes_the_sender",
    "`data_func` refuses": CONTRAST + "test_refused_data_leaves_nothing_behind",
    "SIGSEGV, `abort()`, `exit()`": CONTRAST + "test_harm_costs_its_own_session_and_no_other",
    "`longjmp`": "indimail/test_abi.py::test_a_crash_is_a_421_and_the_log_knows_whose",
    "a plugin sleeps 40 s": CONTRAST + "test_harm_costs_its_own_session_and_no_other",
    "smtpd-plugin0.so to smtpd-plugin9.so": CONTRAST + "test_more_than_ten_plugins",
    "without setting `*mesg`": CONTRAST + "test_the_client_gets_one_whole_reply_and_no_memory_of_ours",
    "`250 …` as the text": CONTRAST + "test_the_client_gets_one_whole_reply_and_no_memory_of_ours",
    "a file that cannot be loaded": CONTRAST + "test_a_broken_plugin_is_no_start_and_no_220",
    "path of the plugin": CONTRAST + "test_a_file_that_changes_is_not_loaded_and_nobody_hears_why",
    "text of a regular expression's error": (
        "plugins/test_qmail_lists.py::test_a_line_that_means_nothing_stops_the_start"
    ),
    "the DNSBL plugin": CONTRAST + "test_the_dnsbl_plugin_lets_no_second_mail_of_a_listed_client_through",
    "a filter that hangs": "programs/test_runs.py::test_the_deadline_kills_it",
    "a filter's memory": "programs/test_runs.py::test_a_gigabyte_of_output_is_cut_off_at_the_limit",
    "processes, files": "programs/test_runs.py::test_what_it_leaves_behind_is_killed_and_not_waited_for",
    "no `rcpthosts`": "config/test_qmail.py::test_without_rcpthosts_nobody_relays",
}
"""What stands in a row of the page's table -> the test that shows it."""


def test_every_row_of_the_page_is_shown_by_a_test():
    """plugins/INDIMAIL.md, "What went wrong there": nothing is claimed that nobody has seen."""
    page = (TESTS.parent / "plugins" / "INDIMAIL.md").read_text()
    table = page.partition("## What went wrong there")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    assert [row for row in rows if not any(words in row for words in SHOWN)] == []
    assert [words for words in SHOWN if not any(words in row for row in rows)] == []
    for test in SHOWN.values():
        file, _, name = test.partition("::")
        text = (TESTS / file).read_text()
        assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), test
