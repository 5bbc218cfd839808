"""docs/deployment.md, README.md: each configuration they show is accepted by the program that it is for."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkd.cli import main
from tests.support.page import Shown, below, blocks
from tests.support.pki import Authority

PAGE = Path(__file__).parent.parent.parent / "docs" / "deployment.md"
SHOWN = blocks(PAGE)
MX, SUBMISSION, HAPROXY, BEHIND, ROLES = (
    "As MX on port 25, with systemd",
    "Submission for your own users",
    "Behind HAProxy",
    "In front of Postfix and Dovecot",
    "Who may look, and who may act",
)
README = [one for one in blocks(PAGE.parent.parent / "README.md") if one.language == "toml"]
CHECKED = {"toml", "haproxy", "postfix", "postfix-master", "dovecot", "ini"}


def of(section: str, language: str = "toml") -> list[Shown]:
    return [one for one in SHOWN if (one.section, one.language) == (section, language)]


def replaced(table: str, old: str, new: str) -> str:
    """`old` with its table of that name taken out and `new`, which has it, in its place."""
    without, count = re.subn(rf"^\[{table}\]\n(?:(?!\[).*\n)*", "", old, flags=re.MULTILINE)
    assert count == 1
    return without + new


def forkd_files() -> dict[str, dict[str, str]]:
    """Case -> file -> text, as a reader would have put them together."""
    mx, dnsbl = of(MX)
    more, dovecot = of(SUBMISSION)
    (haproxy,) = of(HAPROXY)
    postfix, store = of(BEHIND)
    (roles,) = of(ROLES)
    submission = mx.text + more.text + roles.text
    return {
        "mx": {one.name: one.text for one in (mx, dnsbl)},
        "submission": {mx.name: submission, dnsbl.name: dnsbl.text},
        "submission, dovecot": {mx.name: replaced("auth", submission, dovecot.text)},
        "haproxy": {haproxy.name.partition(",")[0]: haproxy.text},
        "postfix": {postfix.name: postfix.text},
        "dovecot": {store.name: store.text},
        "README": {mx.name: "".join(one.text for one in README[:2])},
        "README, qmail": {mx.name: README[2].text},
    }


KNOWN_NOTES = (
    "queue.relay_transport is used for reports alone",
    "plugin dnsbl is asked in shadow",
    "dnsbl: what only the plugin itself can check",
)
"""What the page says too."""


@pytest.fixture(scope="module")
def machine() -> Iterator[Path]:
    """A folder with what the page's machine has; its path is short, as a socket's must be."""
    with tempfile.TemporaryDirectory(prefix="page-") as name, contextlib.ExitStack() as ends:
        folder = Path(name)
        for inner in (
            "etc/letsencrypt/live/mx.example.org",
            "etc/forkd/plugins.d",
            "etc/forkd/auth",
            "run/dovecot",
        ):
            (folder / inner).mkdir(parents=True)
        pair = Authority(folder).pair("mx.example.org")
        pair.chain.rename(folder / "etc/letsencrypt/live/mx.example.org/fullchain.pem")
        pair.key.rename(folder / "etc/letsencrypt/live/mx.example.org/privkey.pem")
        for users in ("etc/forkd/auth/users", "etc/forkd/users"):
            (folder / users).touch(0o640)
        (folder / "etc/forkd/aliases").write_text("info@example.org: alice@example.org\n")
        for program in ("usr/local/bin/to-list", "var/qmail/bin/qmail-queue"):
            (folder / program).parent.mkdir(parents=True)
            shutil.copy("/bin/cat", folder / program)
        for store in ("lmtp", "auth-forkd"):
            ends.enter_context(socket.socket(socket.AF_UNIX)).bind(str(folder / "run/dovecot" / store))
        yield folder


@pytest.mark.parametrize("case", forkd_files())
def test_forkd_takes_what_is_shown_for_it(case: str, machine: Path, capsys: pytest.CaptureFixture[str]):
    """`forkd config check`, with the files that it names; what it has to note, the page says."""
    for old in (machine / "etc/forkd/plugins.d").iterdir():
        old.unlink()
    for name, text in forkd_files()[case].items():
        (machine / name.removeprefix("/")).write_text(below(machine, text))
    status = main(["config", "check", "--json", str(machine / "etc/forkd/forkd.toml")])
    said = json.loads(capsys.readouterr().out)
    assert status == 0, said
    assert [note for note in said["notes"] if not note.startswith(KNOWN_NOTES)] == []


def run(command: list[str]) -> tuple[int, str]:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr.strip()


def _haproxy(folder: Path, text: str) -> tuple[int, str]:
    (folder / "haproxy.cfg").write_text(text)
    return run(["haproxy", "-c", "-q", "-f", str(folder / "haproxy.cfg")])


def _postfix(folder: Path, text: str) -> tuple[int, str]:
    (folder / "main.cf").write_text(f"compatibility_level = 3.6\nmyhostname = mail.example.org\n{text}")
    (folder / "master.cf").write_text(of(BEHIND, "postfix-master")[0].text)
    main, services = run(["postconf", "-n", "-c", str(folder)]), run(["postconf", "-M", "-c", str(folder)])
    return max(main[0], services[0]), main[1] + services[1]


def _dovecot(folder: Path, text: str) -> tuple[int, str]:
    (folder / "dovecot.conf").write_text(f"ssl = no\n{text}")
    return run(["doveconf", "-n", "-c", str(folder / "dovecot.conf")])


OTHERS: dict[str, tuple[str, Callable[[Path, str], tuple[int, str]]]] = {
    "haproxy": (HAPROXY, _haproxy),
    "postfix": (BEHIND, _postfix),
    "dovecot": (BEHIND, _dovecot),
}


@pytest.mark.parametrize("language", OTHERS)
def test_the_others_take_what_is_shown_for_them(language: str, tmp_path: Path):
    """HAProxy's, Postfix' and Dovecot's own checkers, without a warning."""
    section, check = OTHERS[language]
    (shown,) = of(section, language)
    assert check(tmp_path, shown.text) == (0, "")


def test_nothing_on_the_page_goes_unchecked():
    """A new block has a case above."""
    assert {one.language for one in SHOWN} == CHECKED
    assert len([one for one in SHOWN if one.language == "toml"]) == 8
    assert len(SHOWN) == 8 + len(OTHERS) + 2  # and master.cf, and the drop-in of systemd
    assert len(README) == 3


def test_the_drop_in_names_the_folder_that_the_configuration_writes_in():
    """Else deliveries fail with EROFS behind ProtectSystem=strict."""
    (drop_in,) = of(MX, "ini")
    assert "[Service]\nReadWritePaths=/var/mail\n" in drop_in.text
    assert 'path = "/var/mail/' in of(MX)[0].text
