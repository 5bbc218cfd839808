"""Does a recorded call fail again? The same frames to a fresh sandbox, under the same limits."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from forkd.config.schema import Config, PluginConfig, PluginLimits
from forkd.hooks.checks import check_answer
from forkd.hooks.spec import HOOKS
from forkd.kit.stage import Stage
from forkd.rpc.calls import Answer, CallFailed
from forkd.rpc.records import ID, CrashRecord, crash_folder, decode
from forkd.sandbox.host import Filter, Sandbox
from forkd.sandbox.refusal import Refusal
from forkd.sealed import sealed


@dataclasses.dataclass(frozen=True, slots=True)
class Replayed:
    """What happened this time.

    cause    empty: every frame was answered. Else of CallFailed; at which frame, counted from 1.
    answer   the last one, where there was one.
    """

    cause: str
    detail: str
    frame: int
    answer: Answer | None
    refusals: tuple[Refusal, ...]
    output: str
    notes: tuple[str, ...]

    def same_as(self, record: CrashRecord) -> bool:
        """It failed at the same call for the same reason."""
        return self.cause == record.cause and self.frame == len(record.frames)


async def replay(
    plugin: PluginConfig, config: Config, record: CrashRecord, message: bytes | None, *, data_dir: Path
) -> Replayed:
    """Send the record's frames to a sandbox of `plugin`. Raises NotStarted."""
    plugin = msgspec.structs.replace(plugin, limits=_limits(plugin, record.limits))
    cause = detail = ""
    answer: Answer | None = None
    at = 0
    async with Stage(plugin, config, data_dir=data_dir, learning=True, reuse=1) as stage:
        sandbox = await stage.host.take(plugin.name, record.session)
        try:
            for frame in record.frames:
                at += 1
                answer = await _call(sandbox, plugin, bytes(frame), message)
        except CallFailed as why:
            cause, detail, answer = why.cause, why.detail, None
        sandbox.close()
        output = sandbox.last_output
        refusals = tuple(stage.refusals())
    return Replayed(cause, detail, at, answer, refusals, output, tuple(stage.notes))


async def _call(
    sandbox: Sandbox | Filter, plugin: PluginConfig, frame: bytes, message: bytes | None
) -> Answer:
    """One frame; what a worker would have taken as a failure is one here."""
    call: dict[str, Any] = json.loads(frame)
    hook, n = str(call["hook"]), int(call["n"])
    limits = plugin.limits
    fd = sealed("message", [message]) if hook == "message" and message is not None else -1
    try:
        timeout_s = float(limits.message_timeout if hook == "message" else limits.timeout)
        answer = await sandbox.call(frame, n, timeout_s=timeout_s, message_fd=fd)
    finally:
        if fd >= 0:
            os.close(fd)
    if answer.error:
        raise CallFailed("exception", answer.error)
    if answer.n != n:
        raise CallFailed("protocol", f"answer {answer.n} to call {n}")
    if hook in HOOKS:
        check_answer(
            answer, spec=HOOKS[hook], powers=plugin.powers, smtputf8="smtputf8" in call.get("args", ())
        )
    return answer


def _limits(plugin: PluginConfig, recorded: Mapping[str, Any]) -> PluginLimits:
    """The record's times, sizes and numbers; what it does not have stays the plugin's."""
    numbers = {
        name: type(own)(recorded[name])
        for name in plugin.limits.__struct_fields__
        if isinstance(own := getattr(plugin.limits, name), int | float)
        and isinstance(recorded.get(name), int | float)
    }
    return msgspec.structs.replace(plugin.limits, **numbers)


class NoRecord(Exception):  # noqa: N818 - a state of what was given
    """There is no such record, or it is none; the text is for the admin."""


def find(text: str, data_dir: Path) -> Path:
    """The file of a record: `text` is an id, or names the file itself. Raises NoRecord."""
    if not ID.fullmatch(text):
        return Path(text)
    file = crash_folder(data_dir) / f"{text}.json"
    if not file.is_file():
        raise NoRecord(f"there is no record {text} in {file.parent}")
    return file


def read(file: Path) -> tuple[CrashRecord, bytes | None]:
    """A record and its message, where it has one. Raises NoRecord."""
    try:
        record = decode(file.read_bytes())
        message = (file.parent / Path(record.message).name).read_bytes() if record.message else None
    except OSError as error:
        raise NoRecord(f"{error.filename}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise NoRecord(f"{file}: {error}") from error
    return record, message
