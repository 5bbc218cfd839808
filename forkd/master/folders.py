"""What must lie in data_dir before anything starts, and whose is it?

Made by master while it still may give folders away; what is there already stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from forkd.auth import users
from forkd.config.schema import Config, PluginConfig
from forkd.exits import Exit
from forkd.master import rights
from forkd.master.errors import StartError
from forkd.master.privileges import Identities
from forkd.master.roles import workers
from forkd.queue.spool import TMP, Spool, spool_root
from forkd.rpc.records import crash_folder
from forkd.sandbox import launch


def make(config: Config, plugins: Sequence[PluginConfig], identities: Identities) -> None:
    """Every folder that some role writes in. Raises StartError."""
    data_dir = config.server.data_dir
    try:
        _prepare(config, range(workers(config)), identities)
        for _, _, _, folder in rights.mail_folders(config):
            # Elsewhere it is the admin's.
            if folder != data_dir and folder.is_relative_to(data_dir):
                _make(folder, identities, "queue_user")
        if config.crash.keep:
            _make(crash_folder(data_dir), identities, "user")
        if config.trace.keep:
            _make(rights.trace_folder(data_dir), identities, "admin_user")
        if any(plugin.capabilities.brokered for plugin in plugins):
            _make(rights.state_folder(data_dir), identities, "broker_user")
    except OSError as error:
        raise StartError(Exit.SYSTEM, f"{error.filename or data_dir}: {error.strerror}") from error


def make_slot(config: Config, number: int, identities: Identities) -> None:
    """The folders of one more worker's slot, where they are missing. Raises OSError."""
    root = spool_root(config.server.data_dir)
    if not all((root / where / f"w{number}").is_dir() for where in (TMP, "new", "free")):
        _prepare(config, [number], identities)


def _prepare(config: Config, numbers: Iterable[int], identities: Identities) -> None:
    Spool.prepare(
        spool_root(config.server.data_dir),
        [f"w{number}" for number in numbers],
        worker_uid=identities.uid("user"),
        queue_uid=identities.uid("queue_user"),
        queue_gid=identities.gid("queue_user"),
    )


def _make(folder: Path, identities: Identities, owner: str) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(folder, identities.uid(owner), identities.gid(owner))


def check_users(config: Config, identities: Identities) -> None:
    """Is the file of users right, and may workers read it? Before they find out. Raises StartError."""
    auth = config.auth
    if auth.backend != "users":
        return
    try:
        users.read(auth.users)
    except users.UsersError as error:
        raise StartError(Exit.CONFIG, f"[auth] users = {error}") from error
    worker = identities.by_key.get("user")
    if worker and launch.unreachable([auth.users], uid=worker.uid, gid=worker.gid):
        raise StartError(
            Exit.CONFIG,
            f"[auth] users = {auth.users}: user {worker.name!r} may not read it; give the file and its "
            f"folder to that user's group (chgrp, chmod 0640)",
        )
