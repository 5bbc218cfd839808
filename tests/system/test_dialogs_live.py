"""The transcripts of tests/dialogs, played by a real client against the live daemon."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.dialog import Dialog, Expect, ExpectClose, Say, load

from .conftest import Make

FILES = sorted((Path(__file__).parent.parent / "dialogs").glob("*.txt"))
PLUGINS = {
    "10-block_senders.toml": """
plugin = "block_senders"
[settings]
senders = ["blocked@example.org", "spam.example"]
"""
}
LIMITS = ("message_size", "recipients", "errors")
LISTENER = ("wire", "early_talker")


def settings(options: dict[str, str | int]) -> dict[str, str]:
    """The daemon's configuration for a dialog's `!` lines."""
    limits = "".join(
        f"{key} = {json.dumps(f'{value}B' if key == 'message_size' else value)}\n"
        for key, value in options.items()
        if key in LIMITS
    )
    listener = "".join(f'{key} = "{value}"\n' for key, value in options.items() if key in LISTENER)
    assert set(options) <= {*LIMITS, *LISTENER}
    return {
        "config": f'[domain."test.local"]\n[domain.localhost]\n[limits]\n{limits}',
        "listener": listener,
    }


def play_live(dialog: Dialog, daemon: Daemon) -> None:
    """As tests.support.dialog.play, but a live server is waited for."""
    with daemon.connect() as peer, peer.makefile("rb") as replies:
        for step in dialog.steps:
            match step:
                case Say(octets):
                    # A server that has closed already does not take it; the next line tells.
                    with contextlib.suppress(ConnectionError):
                        peer.sendall(octets)
                case Expect(wanted, number):
                    line = replies.readline().decode("ascii").removesuffix("\r\n")
                    assert step.matches(line), f"line {number}: {line!r}, not {wanted!r}"
                case ExpectClose(number):
                    with contextlib.suppress(ConnectionResetError):
                        extra = replies.readline()
                        assert extra == b"", f"line {number}: {extra!r}, not the close"


@pytest.mark.slow
def test_every_dialog_holds_against_the_live_daemon(make_daemon: Make):
    """One daemon for each set of options; every file in it."""
    groups: dict[str, list[tuple[str, Dialog]]] = {}
    for path in FILES:
        dialog = load(path)
        if dialog.configured:  # certificates, users, trusted networks: their own tests have them
            continue
        groups.setdefault(json.dumps(dialog.options, sort_keys=True), []).append((path.name, dialog))
    failed = []
    for options, dialogs in groups.items():
        daemon = make_daemon(plugins=PLUGINS, **settings(json.loads(options)))
        for name, dialog in dialogs:
            try:
                play_live(dialog, daemon)
            except AssertionError as error:
                failed.append(f"{name}: {error}")
        daemon.stop()
    assert not failed
    assert sum(map(len, groups.values())) >= 25
