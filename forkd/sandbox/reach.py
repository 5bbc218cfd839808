"""Can the uid that a zygote will have read what it is to read? Asked before it is too late to say so.

An interpreter or a plugin below a home folder is the usual case: only root and its owner get there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from forkd.sandbox import interpreter
from forkd.sandbox.spec import ZygoteSpec


class ReachError(Exception):
    """It cannot; the text is for the admin."""


def check_reach(spec: ZygoteSpec) -> None:
    """Can its uid read what it is to read? Looked at in the whole file system, which shows the reason best:
    below a mount root a folder above could not be in the way. Raises ReachError.
    """
    uid, gid = os.geteuid(), os.getegid()
    if spec.uid is not None and spec.gid is not None:
        os.setgroups([])
        os.setegid(spec.gid)
        os.seteuid(spec.uid)
    if problems := _problems((Path(spec.python), interpreter.BOOT, *spec.paths())):
        raise ReachError(f"uid {os.geteuid()} cannot read {', '.join(problems)}")
    if spec.argv and not os.access(spec.argv[0], os.X_OK, effective_ids=True):
        raise ReachError(f"uid {os.geteuid()} may not execute {spec.argv[0]}")
    if spec.uid is not None:
        os.seteuid(uid)
        os.setegid(gid)


def unreachable(paths: Iterable[Path], *, uid: int, gid: int, write: bool = False) -> list[str]:
    """Which of `paths` a process of `uid` could not read (and write): may ids be dropped, will it work?

    Asked by a throw-away process that has dropped its ids (an interpreter below a home folder is the
    usual case). Blocks for a fork. Raises OSError.
    """
    paths = list(paths)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            with os.fdopen(writer, "wb", closefd=False) as answer:
                answer.write(json.dumps(_problems(paths, write=write)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as answer:
            text = answer.read()
    finally:
        os.waitpid(pid, 0)
    result: list[str] = json.loads(text) if text else [str(path) for path in paths]
    return result


def _problems(paths: Iterable[Path], *, write: bool = False) -> list[str]:
    problems = []
    for path in paths:
        try:
            wanted = os.R_OK | (os.X_OK if path.is_dir() else 0) | (os.W_OK if write else 0)
            if os.access(path, wanted, effective_ids=True):
                continue
        except OSError:  # is_dir() below a folder that may not be searched
            pass
        problems.append(str(path))
    return problems
