"""How does an author test a plugin in pytest, without a server?

    from forkd.sdk.testing import assert_denied, assert_passed, load_plugin

    def test_spammers_are_refused():
        plugin = load_plugin("plugins/block_senders", settings={"senders": ["spam.example"]})
        session = plugin.session(client_ip="192.0.2.1")
        assert_denied(session.mail("joe@spam.example"), enhanced="5.7.1")
        assert_passed(session.mail("joe@example.org"))

load_plugin() reads plugin.toml, fills in the settings' defaults and calls plugin_init; a session calls the
hooks through the same frames that forkd sends, and holds every answer against the manifest: a verdict or
an edit that the plugin does not ask for is an AssertionError here, as it would be a failure there. An
exception of a hook passes through to the test. What the sandbox forbids is not forbidden here.

    def test_the_subject_is_tagged():
        session = load_plugin("tagger").session()
        answer = session.deliver("Subject: hello\\n\\nbody\\n", sender="", recipients=["b@test.local"])
        assert_passed(answer)
        assert_changed_header(answer, "Subject", "[tag] hello")
        assert answer.delivered.headers.get("Subject") == "[tag] hello"

`edits=` of message() and deliver() plays the plugins before: the hook sees their work. Or ask them:

    def test_the_tag_is_signed():
        session = in_order(load_plugin("tagger"), load_plugin("signer")).session()
        answer = session.deliver("Subject: hello\\n\\nbody\\n", sender="", recipients=["b@test.local"])
        assert answer.delivered.headers.get("X-Signed") == "[tag] hello"

in_order() asks them as plugins.d would; plugins in a list are members of one group, which share a sandbox
and may what any of them may.

What does a client get when the plugin fails? with_fault() makes it fail from one hook on (forkd.sdk.faults
has the causes, and the same faults for a real sandbox); the answers are its admin's on_failure:

    def test_a_crash_turns_the_client_away_for_now():
        session = load_plugin("tagger").session().with_fault("crash", at="rcpt", on_failure="defer")
        answer = session.rcpt("b@test.local")
        assert_failed(answer, "crash")
        assert_deferred(answer, enhanced="4.3.0")
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forkd.sdk.asked import Answer, Delivered
from forkd.sdk.asserts import (
    assert_accepted,
    assert_added_header,
    assert_added_recipient,
    assert_authenticated,
    assert_changed_header,
    assert_changed_sender,
    assert_deferred,
    assert_deleted_header,
    assert_deleted_recipient,
    assert_denied,
    assert_discarded,
    assert_disconnected,
    assert_exported,
    assert_failed,
    assert_no_opinion,
    assert_passed,
    assert_quarantined,
    assert_replaced_body,
    assert_rewritten,
)
from forkd.sdk.granted import Granted
from forkd.sdk.plugin import Plugin, PluginError, SettingsError, check_hooks, load
from forkd.sdk.scripted import ScriptedSession

__all__ = [
    "Answer",
    "Delivered",
    "LoadedPlugin",
    "Order",
    "ScriptedSession",
    "assert_accepted",
    "assert_added_header",
    "assert_added_recipient",
    "assert_authenticated",
    "assert_changed_header",
    "assert_changed_sender",
    "assert_deferred",
    "assert_deleted_header",
    "assert_deleted_recipient",
    "assert_denied",
    "assert_discarded",
    "assert_disconnected",
    "assert_exported",
    "assert_failed",
    "assert_no_opinion",
    "assert_passed",
    "assert_quarantined",
    "assert_replaced_body",
    "assert_rewritten",
    "in_order",
    "load_plugin",
]


class LoadedPlugin:
    """A plugin with its manifest; sessions come from session()."""

    def __init__(self, plugin: Plugin, manifest: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        self.granted = Granted(manifest.get("wants", {}), settings)
        self.plugin = plugin
        self.manifest = manifest
        self.name: str = manifest["name"]

    def session(self, **facts: Any) -> ScriptedSession:
        """A new session; facts as forkd.sdk.Session names them, e.g. client_ip="192.0.2.1".

        dns, state, targets  in the place of capabilities: see forkd.sdk.fakes.
        """
        return in_order(self).session(**facts)


class Order:
    """Several plugins, as they are asked one after the other; sessions come from session()."""

    def __init__(self, groups: Sequence[Sequence[LoadedPlugin]]) -> None:
        self._groups = groups

    def session(self, **facts: Any) -> ScriptedSession:
        """A new session of all of them; facts as LoadedPlugin.session() has them."""
        asked = [
            ([member.plugin for member in group], Granted.united([member.granted for member in group]))
            for group in self._groups
        ]
        return ScriptedSession(asked, facts)


def in_order(*plugins: LoadedPlugin | Sequence[LoadedPlugin]) -> Order:
    """Plugins in the order in which they are asked; those in a list are a group, which shares a sandbox.

    The first verdict ends a hook, and each sees the edits of those before it, as in forkd.
    """
    return Order([[each] if isinstance(each, LoadedPlugin) else list(each) for each in plugins])


def load_plugin(folder: str | os.PathLike[str], *, settings: Mapping[str, Any] | None = None) -> LoadedPlugin:
    """Load a plugin's folder as forkd would.

    settings  what the admin would set; the rest comes from the manifest's defaults.
    Raises    PluginError; SettingsError (a ValueError) for settings that forkd or plugin_init refuses;
              whatever else the plugin itself raises while it is loaded.
    """
    folder = Path(folder).absolute()
    manifest = tomllib.loads((folder / "plugin.toml").read_text(encoding="utf-8"))
    given = dict(settings or {})
    values: dict[str, Any] = {}
    for name, declared in manifest.get("settings", {}).items():
        if name in given:
            values[name] = given.pop(name)
        elif "default" in declared:
            values[name] = declared["default"]
        else:
            raise PluginError(f"setting {name} has no default: the test must give it")
    for name, declared in manifest.get("settings", {}).items():
        _check_bounds(name, declared, values[name])
    if given:
        raise PluginError(f"plugin.toml declares no setting {', '.join(sorted(given))}")
    module = manifest.get("module", f"{manifest['name']}.py")
    plugin = load(folder, module, values)
    check_hooks(plugin, frozenset(manifest["hooks"]))
    return LoadedPlugin(plugin, manifest, values)


def _check_bounds(name: str, declared: Mapping[str, Any], value: Any) -> None:
    """Raise SettingsError for what forkd would not hand to the plugin: it is out of range, or no choice."""
    if "min" in declared and value < declared["min"]:
        raise SettingsError(f"setting {name}: this is at least {declared['min']}, not {value!r}")
    if "max" in declared and value > declared["max"]:
        raise SettingsError(f"setting {name}: this is at most {declared['max']}, not {value!r}")
    for word in value if isinstance(value, list) else [value]:
        if declared.get("choices") and word not in declared["choices"]:
            raise SettingsError(f"setting {name}: this is {' or '.join(declared['choices'])}, not {word!r}")
