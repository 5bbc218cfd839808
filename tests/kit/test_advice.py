"""What an author is told to do instead: forkd/kit/advice.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkd.kit.advice import Advice, advise
from forkd.sandbox.refusal import Refusal


def of_open(path: str) -> Advice:
    text = f'openat("{path}", O_RDONLY)'
    return advise(Refusal(1, "openat", text, "EACCES", loading=False, stack=(), path=path))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/", "no plugin needs a whole tree"),
        ("/etc", "no plugin needs a whole tree"),
        ("/proc/self/environ", "forkd measures"),
        ("/proc", "forkd measures"),
        ("/sys/kernel", "forkd measures"),
        ("/dev/urandom", "os.urandom()"),
    ],
)
def test_no_grant_is_suggested_for_what_nobody_should_grant(path: str, says: str):
    """Whoever copies the suggestion into his entry would open the machine."""
    advice = of_open(path)
    assert says in advice.instead
    assert not advice.grant


def test_a_file_is_granted_by_its_own_name(tmp_path: Path):
    """Whether it is there or not."""
    for name in ("there", "not"):
        file = tmp_path / name
        if name == "there":
            file.touch(mode=0o644)
        advice = of_open(str(file))
        assert advice.grant == f'files = ["{file}"]'
        assert advice.instead.endswith("read once, in plugin_init")


def test_a_file_that_other_users_cannot_read_is_said_so(tmp_path: Path):
    """A grant alone would not help: the plugin runs as a user of its own."""
    file = tmp_path / "closed"
    file.touch(mode=0o640)
    assert "give it a file that every user may read" in of_open(str(file)).instead
