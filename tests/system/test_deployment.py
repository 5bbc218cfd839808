"""docs/deployment.md at work: through HAProxy and forkd into Dovecot, with the page's own files."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, free_port, swaks
from tests.support.dovecot import MailStore
from tests.support.page import blocks
from tests.support.people import Person
from tests.support.waiting import wait_for

from .conftest import Make

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parent.parent.parent / "docs" / "deployment.md"


def shown(language: str) -> str:
    (found,) = (
        one.text for one in blocks(PAGE) if (one.section, one.language) == ("Behind HAProxy", language)
    )
    return found


@contextlib.contextmanager
def haproxy(folder: Path, port: int, backend: int) -> Iterator[None]:
    """The page's haproxy.cfg: one server, checked often."""
    text = shown("haproxy").replace("bind :25", f"bind 127.0.0.1:{port}")
    text = text.replace("192.0.2.11:10025", f"127.0.0.1:{backend}").replace("inter 10s", "inter 200ms")
    text = "".join(line for line in text.splitlines(keepends=True) if "mx2" not in line)
    file = folder / "haproxy.cfg"
    file.write_text(text)
    process = subprocess.Popen(["haproxy", "-db", "-f", str(file)], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_through_haproxy_and_forkd_into_dovecot(make_daemon: Make, who: Person, tmp_path: Path):
    """The health check holds (option smtpchk with a LOCAL header), the client's address is the client's, and
    Dovecot has the mail."""
    with MailStore({"alice@example.org": 0}) as store:
        daemon = make_daemon(start=False)
        config = shown("toml").replace("192.0.2.11:10025", "127.0.0.1:0")
        config = config.replace('data_dir = "/var/lib/forkd"\n', f'data_dir = "var"\n{who.server}')
        config = config.replace("192.0.2.1/32", "127.0.0.1/32")
        config = config.replace("/run/dovecot/lmtp", str(store.socket))
        (daemon.folder / "forkd.toml").write_text(f'{config}\n[log]\nformat = "json"\n')
        daemon.start()
        port = free_port()
        with haproxy(tmp_path, port, daemon.port):
            front = Daemon(Path(), port=port)

            def taken() -> bool:
                mail = "--local-interface 127.0.0.9 --from a@client.example --to alice@example.org"
                return swaks(front, mail).returncode == 0

            wait_for(taken, timeout_s=30)
        wait_for(lambda: store.count("alice@example.org") >= 1, timeout_s=30)
    (message, *_) = daemon.told("message", 1)
    assert message["client"].startswith("127.0.0.9:")
    assert not daemon.events("bug")
