"""forkd plugin replay: does a recorded call of a plugin fail again?"""

from __future__ import annotations

import contextlib
import datetime
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from forkd.cli.failure import CommandFailed
from forkd.cli.lines import say, tell
from forkd.cli.options import config_option, json_option, print_json
from forkd.cli.plugin_kit import given_plugin, not_started, run
from forkd.cli.tables import print_facts
from forkd.config.load import data_dir_of, load
from forkd.config.schema import Config, PluginConfig
from forkd.exits import Exit
from forkd.kit.replay import NoRecord, Replayed, find, read
from forkd.kit.replay import replay as run_again
from forkd.rpc.records import CrashRecord

_NAMED = "name the configuration by --config, or the plugin's folder by --path"


@click.command()
@click.argument("record")
@config_option
@click.option("--path", metavar="PATH", help="The plugin's folder, in the place of the configured one.")
@click.option("--settings", "-s", multiple=True, metavar="NAME=VALUE", help="With --path: its settings.")
@json_option
def replay(
    record: str, config: Path | None, path: str | None, settings: tuple[str, ...], as_json: bool
) -> int:
    """Run the failing call of RECORD again, in a real sandbox under the same limits.

    RECORD is an id as the log has it, or a file; with crash.keep above 0 records lie in data_dir/crash.
    Secrets of an auth hook are not in it.

    Exit status 0: every call was answered this time; 1: it failed.
    """
    try:
        kept, message = read(find(record, data_dir_of(config)))
    except NoRecord as error:
        raise CommandFailed(str(error), hint="" if config else _NAMED) from error
    with _plugin(kept, config, path, settings) as (plugin, whole, data_dir):
        replayed = run(run_again(plugin, whole, kept, message, data_dir=data_dir))
    if as_json:
        print_json(_as_data(kept, replayed))
    else:
        _show(kept, replayed, plugin)
    return Exit.FAILED if replayed.cause else Exit.OK


@contextlib.contextmanager
def _plugin(
    kept: CrashRecord, config: Path | None, path: str | None, settings: tuple[str, ...]
) -> Iterator[tuple[PluginConfig, Config, Path]]:
    """The plugin as it is configured, or the one in --path with all its wants granted."""
    if path is not None:
        with given_plugin(path, settings) as given:
            yield given.plugin, given.config, given.data_dir
        return
    loaded = load(config)
    for plugin in loaded.plugins:
        if plugin.name == kept.plugin:
            with not_started(), tempfile.TemporaryDirectory(prefix="forkd-kit-") as data_dir:
                Path(data_dir).chmod(0o755)
                yield plugin, loaded.config, Path(data_dir)
            return
    known = ", ".join(plugin.name for plugin in loaded.plugins) or "none"
    raise CommandFailed(
        f"the plugin {kept.plugin} of this record is not configured (configured: {known})",
        hint=_NAMED,
    )


def _show(kept: CrashRecord, replayed: Replayed, plugin: PluginConfig) -> None:
    for note in replayed.notes:
        say(f"note: {note}")
    if kept.version and kept.version != plugin.version:
        say(f"note: the record is of version {kept.version}, this is {plugin.version}")
    if kept.cut:
        say("note: the record is not whole: a part of the message or of the calls before is missing")
    at = datetime.datetime.fromtimestamp(kept.at, datetime.UTC)
    facts = [
        ("plugin", f"{kept.plugin} {kept.version}"),
        ("then", f"{at:%Y-%m-%d %H:%M:%S} UTC, session {kept.session}, hook {kept.hook}"),
        ("it failed by", f"{kept.cause}: {kept.detail}" if kept.detail else kept.cause),
        ("now", _now(replayed)),
    ]
    facts += [("refused", text) for text in _refused(replayed)[-3:]]
    if replayed.output:
        facts.append(("it printed", replayed.output))
    print_facts([row for name, text in facts for row in _rows(name, text)])
    if not replayed.cause:
        verdict = "every call was answered: it does not fail any more"
    elif replayed.same_as(kept):
        verdict = "the same failure"
    else:
        verdict = f"another failure, at call {replayed.frame} of {len(kept.frames)}"
    tell(verdict)


def _refused(replayed: Replayed) -> list[str]:
    """Each kind once, in the order in which they were refused."""
    refused = [one for one in replayed.refusals if not one.harmless]
    return list(dict.fromkeys(f"{one.text}: {one.result}" for one in refused))


def _rows(name: str, text: str) -> list[tuple[str, str]]:
    """A text of several lines below each other."""
    first, *others = text.rstrip().split("\n") or [""]
    return [(name, first), *(("", line) for line in others)]


def _now(replayed: Replayed) -> str:
    if replayed.cause:
        return f"{replayed.cause}: {replayed.detail}" if replayed.detail else replayed.cause
    answer = replayed.answer
    if answer is None or (answer.verdict is None and not answer.edits):
        return "no opinion"
    said = (
        [f"{answer.verdict.do} {answer.verdict.enhanced} {answer.verdict.text}".strip()]
        if answer.verdict
        else []
    )
    return "; ".join([*said, *(f"{len(answer.edits)} edits" for _ in answer.edits[:1])])


def _as_data(kept: CrashRecord, replayed: Replayed) -> dict[str, object]:
    return {
        "ok": not replayed.cause,
        "plugin": kept.plugin,
        "recorded": {"cause": kept.cause, "detail": kept.detail, "hook": kept.hook, "at": kept.at},
        "now": {"cause": replayed.cause, "detail": replayed.detail, "call": replayed.frame},
        "same": replayed.same_as(kept),
        "refused": _refused(replayed),
        "output": replayed.output,
        "notes": list(replayed.notes),
    }
