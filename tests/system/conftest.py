"""The real daemon for system tests, as an ordinary user and as root."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.people import Person, installation, person
from tests.support.uids import UID_BASE

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
def make_daemon(who: Person) -> Iterator[Make]:
    """make_daemon(config=…, plugins={…}, copy=[…]) -> a running daemon in a folder of its own.

    copy  names of test plugins in tests/system/plugins that shall lie beside the configuration.
    """
    with contextlib.ExitStack() as ends:

        def make(*, start: bool = True, **how) -> Daemon:
            daemon = prepare(who, **how)
            ends.callback(end, daemon)
            return daemon.start() if start else daemon

        yield make


@pytest.fixture(scope="module")
def kept() -> Iterator[Callable[..., Daemon]]:
    """kept(who, config, plugins) -> a daemon that lives until all tests of the module are done."""
    with contextlib.ExitStack() as ends:

        @functools.cache
        def keep(who: Person, config: str, plugins: tuple[tuple[str, str], ...]) -> Daemon:
            daemon = prepare(who, config=config, plugins=dict(plugins))
            ends.callback(end, daemon)
            return daemon.start()

        yield keep


@pytest.fixture
def share_daemon(who: Person, kept: Callable[..., Daemon]) -> Make:
    """As make_daemon, but tests of the module that ask for the same have one daemon: each sends to users of
    its own and changes nothing that another could see."""
    return lambda *, plugins, config="": kept(who, config, tuple(plugins.items()))


def prepare(who: Person, *, config: str = "", server: str = "", copy: tuple[str, ...] = (), **more) -> Daemon:
    """A daemon that is not started yet; end() removes it."""
    root, python = installation()
    # Not pytest's tmp_path: only its owner can enter that.
    folder = Path(tempfile.mkdtemp(prefix="forkd-", dir="/var/tmp"))
    folder.chmod(0o755)
    for name in copy:
        shutil.copytree(PLUGINS / name, folder / name)
    text = f"[server]\n{who.server}{server}\n{config}"
    if who.name == "root":
        text = own_uids(text)
    daemon = Daemon(folder, config=text, prefix=who.prefix, python=python, root=root, **more)
    daemon.write_config()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, who.uid, -1)
    return daemon


def end(daemon: Daemon) -> None:
    """Nothing of it is left."""
    try:
        daemon.__exit__()
    finally:
        shutil.rmtree(daemon.folder, ignore_errors=True)


def own_uids(config: str) -> str:
    """The configuration, with uids for plugins that no other test process has."""
    lines = f"[sandbox]\nuid_base = {UID_BASE}\n"
    return config.replace("[sandbox]\n", lines) if "[sandbox]\n" in config else lines + config


@pytest.fixture
def daemon(make_daemon: Make) -> Daemon:
    """A daemon with the stock plugins."""
    return make_daemon(plugins=STOCK)


@pytest.fixture
def shared(share_daemon: Make) -> Daemon:
    """One with the stock plugins that other tests of the module use too."""
    return share_daemon(plugins=STOCK)


EDIT = """
plugin = "../edit"
[grants]
quarantine = true
edit_body = true
delete_recipient = true
rewrite_recipient = true
change_sender = true
edit_headers = ["X-*", "Subject"]
add_recipient = ["test.local"]
reads = ["headers"]
"""
"""plugins.d/10-edit.toml for the plugin `edit`, with all its powers; recipients in test.local."""

STOCK = {
    "10-block_senders.toml": """
plugin = "block_senders"
[settings]
senders = ["blocked@example.org", ".spam.example"]
""",
    "90-mark.toml": 'plugin = "mark"\n[grants]\nedit_headers = ["X-Forkd-Plugin"]\n',
}
