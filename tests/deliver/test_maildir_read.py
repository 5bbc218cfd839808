"""What deliver/maildir.py writes, read by Dovecot."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkd.config import schema
from forkd.deliver.maildir import Maildir
from forkd.deliver.transport import Delivery, Target
from forkd.queue import stored
from tests.support.spooling import a_spool, queued

DOVEADM = shutil.which("doveadm", path=f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin")
pytestmark = pytest.mark.skipif(DOVEADM is None, reason="lack of the machine: dovecot is not installed")


@pytest.fixture
def base() -> Iterator[Path]:
    """Where every user may pass."""
    with tempfile.TemporaryDirectory(prefix="forkd-maildir-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        (Path(name) / "mail").mkdir()
        yield Path(name)


def deliver(base: Path, *targets: Target, **settings: Any) -> None:
    """One mail to each, its subject the address."""
    transport = Maildir("local", schema.Maildir(**settings), root=str(base), host="mx.test.local")
    for target in targets:
        spool = a_spool(base / "spool" / target.address.replace("/", "_"))
        queue_id = queued(spool, message=f"Subject: {target.address}\r\n\r\nbody\r\n".encode())
        item = stored.load(f"{spool.new}/{queue_id}", queue_id)
        spool.close()
        (answer,) = transport.deliver([Delivery(item, (target,))])
        assert isinstance(answer, list)
        assert [result.status for result in answer] == ["delivered"]


def read(base: Path, box: Path, fields: str = "mailbox hdr.subject") -> list[tuple[str, ...]]:
    """What Dovecot finds in a Maildir."""
    said = doveadm(base, box, "-f", "tab", "fetch", fields, "all")
    return sorted(tuple(line.split("\t")) for line in said.splitlines()[1:])


def doveadm(base: Path, box: Path, *command: str) -> str:
    """As another user where we are root: it serves no mail as root."""
    config = base / "dovecot.conf"
    config.write_text(
        f"base_dir = {base}/run\nlog_path = /dev/stderr\nssl = no\nprotocols =\nfirst_valid_uid = 1\n"
        f"mail_location = maildir:{str(box).replace('%', '%%')}:INDEX=MEMORY\n"
    )
    as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*as_user, str(DOVEADM), "-c", config, *command],
        env={"PATH": os.environ["PATH"], "HOME": str(base), "USER": pwd.getpwuid(os.geteuid()).pw_name},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def hand_over(folder: Path) -> None:
    """To the user that reads."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, "nobody", "nogroup")


def test_dovecot_reads_inbox_and_folders(base: Path) -> None:
    """Details made to Maildir++ folders are folders of IMAP, with their levels; fields on top are read."""
    targets = [
        Target(0, "a@test.local", "a", "test.local"),
        Target(0, "a+Work@test.local", "a", "test.local", "Work"),
        Target(0, "a+Work.old@test.local", "a", "test.local", "Work.old"),
        Target(0, "a+../x@test.local", "a", "test.local", "../x"),
    ]
    deliver(base, *targets, subfolder="create")
    box = base / "mail/test.local/a"
    hand_over(base / "mail")
    assert read(base, box) == [
        ("INBOX", "a+../x@test.local"),
        ("INBOX", "a@test.local"),
        ("Work", "a+Work@test.local"),
        ("Work.old", "a+Work.old@test.local"),
    ]
    assert ("<sender@example.org>", "a@test.local") in read(base, box, "hdr.return-path hdr.delivered-to")


def test_dovecot_reads_names_that_are_unusual(base: Path) -> None:
    """%XX stands for what a path cannot have: two such users have two Maildirs, each with his own mail."""
    names = ["a/b", "a%2fb", "..", "é", "x" * 250]
    deliver(base, *(Target(0, f"u{n}@test.local", name, "test.local") for n, name in enumerate(names)))
    hand_over(base / "mail")
    boxes = list((base / "mail/test.local").iterdir())
    assert len(boxes) == len(names)
    assert sorted(read(base, box) for box in boxes) == [[("INBOX", f"u{n}@test.local")] for n in range(5)]


@pytest.mark.skipif(os.geteuid() != 0, reason="lack of the machine: only root has two users")
def test_dovecot_reads_as_another_user_of_the_same_group(base: Path) -> None:
    """group = true, and a folder that hands its group on: nothing has to be given over."""
    shutil.chown(base / "mail", group="nogroup")
    (base / "mail").chmod(0o2770)
    target = Target(0, "a@test.local", "a", "test.local")
    deliver(base, target, group=True)
    box = base / "mail/test.local/a"
    assert read(base, box) == [("INBOX", "a@test.local")]
    doveadm(base, box, "expunge", "mailbox", "INBOX", "all")
    assert read(base, box) == []
    assert not [path for part in ("new", "cur") for path in (box / part).iterdir()]
