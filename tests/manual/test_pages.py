"""The manual pages: nothing that the program knows is missing there, and no formatter has anything to say."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path

import click
import msgspec
import pytest

from forkd.admin.access import Access
from forkd.admin.requests import REQUESTS
from forkd.config.schema import Config, Entry, Manifest
from forkd.config.stock import SAMPLE
from forkd.exits import EXITS
from forkd.hooks.spec import HOOKS
from tests.config.test_sample import uncommented
from tools.manual.commands import every_command
from tools.manual.daemon import cards
from tools.manual.events import every_event
from tools.manual.pages import PAGES, text, write
from tools.manual.roff import bold, escaped
from tools.manual.roles import needed
from tools.manual.schema import sections


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("man")
    write(made)
    return made


@pytest.mark.parametrize("file", PAGES)
def test_mandoc_finds_nothing(folder: Path, file: str):
    """Neither error nor warning nor a matter of style."""
    run = subprocess.run(["mandoc", "-Tlint", "-Wall", str(folder / file)], check=False, capture_output=True)
    assert (run.returncode, run.stdout) == (0, b"")


@pytest.mark.parametrize("file", PAGES)
def test_man_finds_nothing(folder: Path, file: str):
    """As lintian has it: groff with all its warnings."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"}
    command = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(folder / file)]
    run = subprocess.run(command, check=False, capture_output=True, env=environment)
    assert (run.returncode, run.stderr) == (0, b"")


def test_every_request_has_its_role(folder: Path):
    """The control socket's table; an act of a request stands where it may be asked."""
    found = needed()
    assert {name.partition(" ")[0] for names in found.values() for name in names} == set(REQUESTS)
    assert "queue list" in found[Access.VIEW]
    assert "queue hold" in found[Access.OPERATE]
    assert {"stop", "queue remove"} <= set(found[Access.ADMIN])
    page = (folder / "forkd.8").read_text()
    assert all(bold(name) in page for names in found.values() for name in names)


@pytest.mark.parametrize("file", PAGES)
def test_a_page_is_the_same_each_time(folder: Path, file: str):
    """No date of today, no order of a set: it is committed, and compared."""
    assert text(file) == (folder / file).read_text()


def test_every_command_and_option_is_there(folder: Path):
    """What `forkd --help` and the helps below it name."""
    page = (folder / "forkd.8").read_text()
    for shown in every_command():
        if shown.path:
            assert f'.SS "forkd {escaped(" ".join(shown.path))}"' in page
        for option in shown.command.params:
            if isinstance(option, click.Option):
                for name in (*option.opts, *option.secondary_opts):
                    assert bold(name) in page, (shown.path, name)


def test_every_event_exit_status_and_process_is_there(folder: Path):
    """From log.py, exits.py and the cards of main.py."""
    page = (folder / "forkd.8").read_text()
    names = {event.name for event in every_event()}
    assert {"session", "message", "refused", "delivery", "plugin_failure", "service", "bug"} <= names
    for term in [bold(name) for name in names] + [
        f"{bold(str(int(status)))} {escaped(status.name)}" for status in EXITS
    ]:
        assert f".TP\n{term}\n" in page
    found = dict(cards())
    assert {"master", "worker", "qmgr", "admin", "anvil", "broker", "launcher"} <= found.keys()
    for name, card in found.items():
        assert "if taken over" in card
        assert f".SS {name}\n" in page


def test_every_table_and_key_of_the_sample_is_there(folder: Path):
    """Whatever an admin finds in etc/forkd.toml, its page explains."""
    page = (folder / "forkd.toml.5").read_text()
    for name, table in tomllib.loads(uncommented(examples=True)).items():
        assert f".SS [{name}]\n" in page or f".SS [{name}.NAME]\n" in page or f'.SS "[{name}.NAME] ' in page
        inner = table.values() if all(isinstance(one, dict) for one in table.values()) else [table]
        for key in {key for one in inner for key in one} - {"kind"}:
            assert f".TP\n{bold(key)} = " in page, (name, key)
    assert SAMPLE.name == "forkd.toml"


@pytest.mark.parametrize(
    ("file", "root"), [("forkd.toml.5", Config), ("forkd.toml.5", Entry), ("forkd-plugin.7", Manifest)]
)
def test_every_key_of_the_schema_is_there(folder: Path, file: str, root: type[msgspec.Struct]):
    """In whatever table it stands."""
    page = (folder / file).read_text()
    missing = [
        f"{section.heading} {key}"
        for section in sections(root)
        for key in section.keys
        if f".TP\n{bold(key)} = " not in page
    ]
    assert not missing


def test_every_hook_and_verdict_is_there(folder: Path):
    """What an author may write."""
    page = (folder / "forkd-plugin.7").read_text()
    for name, hook in HOOKS.items():
        assert f".TP\n{bold(name)}(" in page
        for verdict in hook.verdicts:
            assert f".TP\n{bold(verdict)}(" in page
