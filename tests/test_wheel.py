"""What is in the wheel, and does it work on its own, without a checkout?"""

from __future__ import annotations

import os
import smtplib
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import alive, children, free_port
from tests.support.waiting import wait_for

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=300)
    return next(folder.glob("forkd-*.whl"))


def test_the_wheel_carries_plugins_sample_configuration_and_units(wheel: Path):
    """And no tests, caches or anything else of the checkout."""
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "forkd/__main__.py",
        "forkd/_share/plugins/block_senders/plugin.toml",
        "forkd/_share/plugins/block_senders/block_senders.py",
        "forkd/_share/plugins/mark/mark.py",
        "forkd/_share/etc/forkd.toml",
        "forkd/_share/etc/plugins.d/10-block_senders.toml",
        "forkd/_share/etc/plugins.d/block_senders.list",
        "forkd/_share/systemd/forkd.service",
        "forkd/_share/systemd/forkd.socket",
        "forkd/sandbox/PROTOCOL.md",
        "forkd/queue/FORMAT.md",
    ):
        assert name in names, name
    for name in ("man8/forkd.8", "man5/forkd.toml.5", "man7/forkd-plugin.7"):
        assert [one for one in names if one.endswith(f".data/data/share/man/{name}")], name
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests/", "tools/"))]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: a socket's path has 107 octets at most, of which pytest's own folders take most."""
    with tempfile.TemporaryDirectory(prefix="forkd-wheel-") as name:
        yield Path(name)


def test_an_installed_wheel_runs_in_an_empty_folder(wheel: Path, folder: Path):
    """`forkd run` with nothing around it: the stock plugins come from the wheel."""
    home = folder / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    install = [str(python), "-m", "pip", "install", "-q", "-c", str(constraints), str(wheel)]
    subprocess.run(install, check=True, timeout=500)
    empty = folder / "empty"
    empty.mkdir()
    port = free_port()
    config = f'[listener.default]\naddress = "127.0.0.1:{port}"\n[domain."test.local"]\n'
    (empty / "forkd.toml").write_text(config)
    shared = next(home.glob("lib/python3*/site-packages/forkd/_share/etc/plugins.d"))
    (empty / "plugins.d").symlink_to(shared)
    command = [str(home / "bin" / "forkd"), "run", "--config", "forkd.toml"]
    if os.geteuid() == 0:
        # As root a configuration makes the roles drop, and pytest's folder is root's alone: run on defaults.
        command = [str(home / "bin" / "forkd"), "run"]
        port = 2525
    log = (empty / "log").open("wb")
    daemon = subprocess.Popen(command, cwd=empty, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]})
    processes: set[int] = set()
    try:

        def served() -> bool:
            assert daemon.poll() is None, (empty / "log").read_text()
            with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
                client.sendmail("a@example.org", ["user@test.local"], "Subject: x\n\nhello\n")
            return True

        wait_for(served, timeout_s=60)
        processes = children(daemon.pid)
        mail = wait_for(lambda: list((empty / "var/mail/test.local/user/new").glob("*")), timeout_s=20)
        assert "X-Forkd-Plugin: mark" in mail[0].read_text()
    finally:
        daemon.terminate()
        daemon.wait(30)
        log.close()
    wait_for(lambda: not any(alive(pid) for pid in processes))
