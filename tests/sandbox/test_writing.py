"""Programs with folders to write (profiles.py "writing", mounts.py, confine.py): in there, and no more."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from forkd.sandbox import launch, mounts
from forkd.sandbox.confine import LAYERS
from forkd.sandbox.policy import compile_policy
from tests.support import programs
from tests.support.sandboxes import FURTHER_MODES, MODES, Stage, as_mode, stage

ACTS = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
static void say(const char *what, long result) {
    printf("%s %s\n", what, result < 0 ? strerrorname_np(errno) : "done");
}
int main(int argc, char **argv) {
    char *in = argv[1], *out = argv[2], *readable = argv[3];
    chdir(in);
    int fd = open("file", O_CREAT | O_RDWR, 0755);
    say("write", write(fd, "#!/bin/true\n", 12));
    say("sync", fsync(fd));
    say("shorten", ftruncate(fd, 12));
    say("mkdir", mkdir("sub", 0700));
    say("move", rename("file", "sub/file"));
    say("link", link("sub/file", "file"));
    say("lock", fcntl(fd, F_SETLK, &(struct flock){.l_type = F_WRLCK}));
    say("blocks beyond its size", fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 4 << 20));
    say("setuid file", open("setuid", O_CREAT | O_WRONLY, 04755));
    say("setgid file", open("setgid", O_CREAT | O_WRONLY, 02755));
    say("setuid file without a name", open(".", O_TMPFILE | O_WRONLY, 04700));
    say("device", renameat2(AT_FDCWD, "file", AT_FDCWD, "sub/other", RENAME_WHITEOUT));
    close(fd);
    say("execute", execl("file", "file", NULL));
    say("symlink", symlink("/etc/passwd", "link"));
    say("fifo", mknod("fifo", S_IFIFO | 0600, 0));
    say("mode", chmod("file", 04755));
    say("attribute", setxattr("file", "user.x", "y", 1, 0));
    say("socket", socket(AF_UNIX, SOCK_STREAM, 0));
    char path[4096];
    snprintf(path, sizeof path, "%s/x", out);
    say("outside", open(path, O_CREAT | O_WRONLY, 0600));
    say("link out", link("file", path));
    say("move out", rename("sub/file", path));
    say("link in", link(readable, "stolen"));
    say("write readable", open(readable, O_WRONLY));
    say("shorten readable", open(readable, O_WRONLY | O_TRUNC));
    say("remove readable", unlink(readable));
    say("remove", unlink("file") | unlink("sub/file") | rmdir("sub"));
    return 0;
}
"""
DONE = ("write", "sync", "shorten", "mkdir", "move", "link", "lock", "remove")


@dataclasses.dataclass
class Folders:
    granted: Path
    other: Path
    readable: Path


def in_stage(mode: str, act: Callable[[Stage, Folders], None]) -> None:
    """Folders that belong to the program's user, a file of his that it may read."""

    def body() -> None:
        with stage(mode) as st:
            made = Folders(st.folder / "in", st.folder / "out", st.folder / "readable")
            made.granted.mkdir()
            made.other.mkdir()
            made.readable.write_text("readable")
            for path in (made.granted, made.other, made.readable):
                if st.uid is not None:
                    os.chown(path, st.uid, st.uid)
            act(st, made)

    as_mode(mode, body)


def start(st: Stage, folders: Folders, program: Path, **how: object) -> None:
    st.launch(
        kind="program",
        argv=(str(program), str(folders.granted), str(folders.other), str(folders.readable)),
        execute=(Path("/bin/true"),),
        write=(folders.granted,),
        files=(folders.readable,),
        policy=compile_policy(profile="exec, writing"),
        memory=256 << 20,
        **({"file_size": 1 << 20} | how),
    )


WALLED = [mode for mode in (*MODES, *FURTHER_MODES) if mode != "user, no namespaces, no Landlock"]
"""Where nothing bounds files, the layer `files` does not hold, and forkd does not start."""


@pytest.mark.parametrize("mode", WALLED)
def test_what_may_be_done_in_the_folder_and_nowhere_else(mode: str):
    """Files are made, moved, linked and removed in there; nothing is executed, given other modes, made a
    link, device or socket, or larger than it says; nothing outside is touched, though it is the same
    user's."""

    def act(st: Stage, folders: Folders) -> None:
        start(st, folders, programs.binary(st, ACTS))
        code, text = programs.once(st)
        said = dict(line.rsplit(" ", 1) for line in text.splitlines())
        assert code == 0
        assert {name for name, result in said.items() if result == "done"} == set(DONE)
        assert len(said) == len(DONE) + 18
        assert not list(folders.granted.iterdir())
        assert not list(folders.other.iterdir())
        assert folders.readable.read_text() == "readable"

    in_stage(mode, act)


@pytest.mark.parametrize("mode", MODES)
def test_without_the_grant_nothing_is_written(mode: str):
    """The profile alone gives nothing: Landlock and the mounts do. And a file has a limit of size."""

    def act(st: Stage, folders: Folders) -> None:
        st.launch(
            kind="program",
            argv=(
                str(programs.binary(st, ACTS)),
                str(folders.granted),
                str(folders.other),
                str(folders.readable),
            ),
            files=(folders.readable, folders.granted),
            policy=compile_policy(profile="exec, writing"),
        )
        code, text = programs.once(st)
        said = dict(line.rsplit(" ", 1) for line in text.splitlines())
        assert code == 0
        assert "done" not in said.values()

    in_stage(mode, act)


@pytest.mark.skipif(os.geteuid() != 0, reason="lack of the machine: only root may look at mounts")
def test_master_sees_what_is_mounted_for_writing():
    """That folder, also with a blank in its name, and nothing more: another one is a reason not to start."""

    def act(st: Stage, folders: Folders) -> None:
        folders.granted = folders.granted.rename(st.folder / "in here")
        start(st, folders, programs.script(st, "exit 0"))
        if not st.zygote.mount_root:
            pytest.skip("lack of the machine: no mount namespaces")
        assert launch.look(st.zygote, layers=LAYERS).problems == ()
        hidden = dataclasses.replace(st.zygote, writable=frozenset({f"{folders.granted}2"}))
        (problem,) = launch.look(hidden, layers=LAYERS).problems
        assert problem.endswith("is mounted for writing")

    in_stage("root", act)


def test_a_writable_folder_lies_over_a_readable_one(tmp_path: Path):
    """Both are shown, whichever is within the other; the writable one stays writable."""
    (tmp_path / "a/b/c").mkdir(parents=True)
    a, b, c = (str(tmp_path / name) for name in ("a", "a/b", "a/b/c"))
    plan = mounts.plan([a, c], [b])
    assert plan is not None
    assert plan.binds == ((a, True), (b, True))
    assert plan.open == {b}
    plan = mounts.plan([b], [a, c])
    assert plan is not None
    assert plan.binds == ((a, True),)
