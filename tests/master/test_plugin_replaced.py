"""Is a file missed that an upgrade puts in another's place? forkd/master/plugin_replaced.py."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkd import log
from forkd.master.plugin_replaced import BEATS, InUse
from forkd.master.zygote_child import ZygoteChild
from forkd.sandbox import launch
from forkd.sandbox import policy as policies


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    os.utime(path, (1, 1))
    return path


def upgrade(path: Path) -> None:
    """As dpkg does it: the same content, in another file of that name."""
    shutil.copy2(path, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


@pytest.mark.parametrize("content", [True, False])
def test_what_makes_no_other_file_is_no_change(file: Path, content: bool):
    """chmod, chown, a backup by hard links; reading it."""
    in_use = InUse([file], content=content)
    file.chmod(0o555)
    os.link(file, file.with_suffix(".backup"))
    file.read_bytes()
    assert in_use.look() == ""


@pytest.mark.parametrize("how", [upgrade, Path.unlink], ids=["upgrade", "removal"])
@pytest.mark.parametrize("content", [True, False])
def test_another_file_in_its_place_is_told_once(file: Path, content: bool, how):
    """And what to do."""
    in_use = InUse([file], content=content)
    how(file)
    assert in_use.look() == f"{file} changed on disk since it was taken into use: restart forkd"
    assert in_use.look() == ""


def test_what_is_written_into_it_counts_for_compiled_plugins_alone(file: Path):
    """A program is started from what lies there, with the next message."""
    seen = {content: InUse([file], content=content) for content in (True, False)}
    file.write_text("#!/bin/sh\nexit 99\n")
    assert seen[False].look() == ""
    assert seen[True].look() != ""


def test_a_programs_interpreter_and_what_it_may_start_are_looked_at(file: Path, tmp_path: Path):
    """By whatever way its name leads there."""
    for name in ("interpreter", "helper"):
        shutil.copy("/bin/dash", tmp_path / name)
    (tmp_path / "sh").symlink_to("interpreter")
    file.write_text(f"#!{tmp_path / 'sh'}\n")
    spec = launch.ZygoteSpec(
        name="filter",
        policy=policies.compile_policy(profile="exec"),
        kind="program",
        argv=(str(file),),
        execute=(tmp_path / "helper",),
    )
    for name, shown in (("interpreter", "sh"), ("helper", "helper")):
        in_use = InUse.of(spec)
        assert in_use.look() == ""
        upgrade(tmp_path / name)
        assert in_use.look().startswith(f"{tmp_path / shown} changed on disk")


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Path]:
    """What is logged, as a file."""
    path = tmp_path / "log"
    with path.open("wb") as to:
        log.setup("logfmt", "info", os.dup(to.fileno()))
        yield path
        log.finish()
        log.setup()


def test_a_zygotes_files_are_looked_at_once_a_minute_and_the_log_says_it(file: Path, lines: Path):
    """By default: heartbeat = "10s"."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = launch.ZygoteProcess(1, ours, -1)
    with ours, theirs:
        child = ZygoteChild(
            7, ours, process=process, name="mine", patience_s=10.0, in_use=InUse([file], content=True)
        )
        child.ask(0.0)
        upgrade(file)
        child.ask(10.0 * BEATS - 1)
        log.flush()
        assert lines.read_text() == ""
        for now in (10.0 * BEATS, 20.0 * BEATS):
            child.ask(now)
    log.flush()
    (line,) = lines.read_text().splitlines()
    assert "level=warning event=process act=changed role=zygote" in line
    assert "name=mine" in line and f"{file} changed on disk" in line and "restart forkd" in line
