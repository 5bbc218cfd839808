"""[reports]: forkd/config/report_checks.py, through load()."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkd.config.schema import Reports
from tests.support.config_files import loaded, problem, problems

DOMAIN = '[domain."example.org"]\nmailboxes = ["alice"]\n'


def test_nothing_set_means_four_hours_and_no_copies(tmp_path: Path) -> None:
    """As the sample says."""
    reports = loaded(tmp_path, DOMAIN).config.reports
    assert reports == Reports()
    assert (reports.warn_after, reports.max_returned, reports.postmaster) == (14_400, 50_000, "")


ELSEWHERE = "senders in other domains hear nothing"
WAYS = {
    "none": ("", "waits in the queue until a way is there"),
    "postmaster": ('[reports]\npostmaster = "alice@example.org"\n', "goes to alice@example.org"),
    "relay": ('[queue]\nrelay_transport = "out"\n[transport.out]\nkind = "smtp"\n', ""),
    "route": ('[route."*"]\ntransport = "out"\n[transport.out]\nkind = "smtp"\n', ""),
    "sink": ('[transport.local]\nkind = "discard"\n', ""),
}


@pytest.mark.parametrize("row", WAYS)
def test_where_no_report_can_go_is_said(tmp_path: Path, row: str) -> None:
    """At start and by `config check`: nobody is to find that out from a full queue."""
    text, said = WAYS[row]
    notes = [note for note in loaded(tmp_path, DOMAIN + text).notes if ELSEWHERE in note]
    assert len(notes) == bool(said)
    assert all(said in note for note in notes)


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ('postmaster = "root"', "postmaster", "as in postmaster@example.org"),
        ('postmaster = "@example.org"', "postmaster", "as in postmaster@example.org"),
        ('postmaster = "bob@example.org"', "postmaster", "no [domain] has this mailbox"),
        ('postmaster = "alice@example.net"', "postmaster", "nothing relays to its domain"),
        ('copies = "failures"', "copies", "nobody gets them"),
        ('copies = "all"', "copies", '"untold" or "failures"'),
        ('warn_after = "5d"', "warn_after", "mail would be given up before anybody is warned"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, key: str, said: str) -> None:
    """Copies that could never be delivered, warnings that would never come."""
    found = problem(tmp_path, f"{DOMAIN}[reports]\n{text}\n")
    assert (found.table, found.key) == ("[reports]", key)
    assert said in f"{found.rule} {found.hint}"


@pytest.mark.parametrize(
    "text",
    [
        '[reports]\npostmaster = "alice@example.org"\ncopies = "failures"\n',
        '[reports]\npostmaster = "postmaster@example.org"\n',
        '[reports]\npostmaster = "noc@example.net"\n[route."example.net"]\n',
        '[reports]\nwarn_after = "0s"\n',
        '[queue]\ngive_up = "1h"\nretry_max = "30m"\n',
    ],
    ids=["a mailbox", "postmaster", "a route", "no warning", "a short life"],
)
def test_what_can_be_meant_is_taken(tmp_path: Path, text: str) -> None:
    """Postmaster exists in every domain; a default is nobody's slip."""
    assert not problems(tmp_path, f"{DOMAIN}{text}")
