"""The real daemon for system tests, as an ordinary user and as root."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.people import installation, person

PLUGINS = Path(__file__).parent / "plugins"

Make = Callable[..., Daemon]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each system test runs as an ordinary user; as root too in `make test-all` or marked both_modes."""
    if "who" in metafunc.fixturenames:
        both = metafunc.definition.get_closest_marker("both_modes") is not None
        root = pytest.param("root", marks=() if both else pytest.mark.slow)
        metafunc.parametrize("who", ["user", root], indirect=True)


@pytest.fixture
def who(request: pytest.FixtureRequest):
    return person(request.param)


@pytest.fixture
def make_daemon(who) -> Iterator[Make]:
    """make_daemon(config=…, plugins={…}, copy=[…]) -> a running daemon in a folder of its own.

    copy  names of test plugins in tests/system/plugins that shall lie beside the configuration.
    """
    made: list[Daemon] = []
    root, python = installation()

    def make(
        *, config: str = "", server: str = "", copy: tuple[str, ...] = (), start: bool = True, **more
    ) -> Daemon:
        # Not pytest's tmp_path: only its owner can enter that.
        folder = Path(tempfile.mkdtemp(prefix="forkd-", dir="/var/tmp"))
        folder.chmod(0o755)
        for name in copy:
            shutil.copytree(PLUGINS / name, folder / name)
        text = f"[server]\n{who.server}{server}\n{config}"
        daemon = Daemon(folder, config=text, prefix=who.prefix, python=python, root=root, **more)
        made.append(daemon)
        daemon.write_config()
        for path in (folder, *folder.rglob("*")):
            os.chown(path, who.uid, -1)
        return daemon.start() if start else daemon

    yield make
    for daemon in made:
        try:
            daemon.__exit__()
        finally:
            shutil.rmtree(daemon.folder, ignore_errors=True)


@pytest.fixture
def daemon(make_daemon: Make) -> Daemon:
    """A daemon with the stock plugins."""
    return make_daemon(plugins=STOCK)


STOCK = {
    "10-block_senders.toml": """
plugin = "block_senders"
[settings]
senders = ["blocked@example.org", ".spam.example"]
""",
    "90-mark.toml": 'plugin = "mark"\n[grants]\nedit_headers = ["X-Forkd-Plugin"]\n',
}
