"""forkd/master/role_trial.py: the walls of our own roles are tried, and a lack of them is seen."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkd.config.schema import Config, Lmtp, Server, Smtp, Transport
from forkd.master import rights, role_trial
from forkd.master.rights import Setting
from forkd.master.roles import ROLES
from forkd.queue.spool import Spool, spool_root
from forkd.sandbox import confine, linux, policy
from forkd.sandbox.role_walls import Walls
from forkd.sandbox.syscalls import Row
from tests.support.sandboxes import MODES, as_mode
from tests.support.trivial import Trivial

CONFINED = [role for role in ROLES if role.may is not None]


RELAYS: dict[str, tuple[dict[str, Transport], tuple[int, ...]]] = {
    "nothing over IP": ({"store": Lmtp(address="unix:/run/store")}, ()),
    "MX": ({"relay": Smtp()}, (25, 53)),
    "fixed hosts": ({"relay": Smtp(hosts=("mail.example.org", "[::1]:26"), tls="implicit")}, (26, 53, 465)),
    "an address of ours": ({"relay": Smtp(port=2500, source_ipv4="127.0.0.1")}, (53, 2500)),
    "LMTP by TCP": ({"store": Lmtp(address="127.0.0.1:24")}, (24, 53)),
}


@pytest.mark.parametrize("name", RELAYS)
def test_qmgr_may_connect_to_its_next_hops_and_nowhere_else(tmp_path: Path, name: str):
    """Ports of the configuration and of name servers; bound is nothing but a source address. Tried by the
    self-test, in a process behind these walls."""
    transports, ports = RELAYS[name]
    config = Config(server=Server(data_dir=tmp_path), transport=transports)
    (qmgr,) = [each for each in subjects(tmp_path, config) if each.name == "qmgr"]
    assert qmgr.walls.ports == ports
    assert qmgr.walls.own_address == (name == "an address of ours")
    found = role_trial.examine([qmgr], tmp_path)
    assert (found.result, found.detail) == ("enforced", "qmgr")


def subjects(tmp_path: Path, config: Config | None = None) -> Iterator[role_trial.Subject]:
    Spool.prepare(spool_root(tmp_path), ["w0"])
    (tmp_path / "run").mkdir(exist_ok=True)
    setting = Setting(config=config or Config(server=Server(data_dir=tmp_path)))
    for role in CONFINED:
        assert role.may is not None
        yield role_trial.Subject(name=role.name, identity=None, walls=rights.walls(role.may, setting))


@pytest.mark.parametrize("mode", MODES)
def test_the_walls_of_every_role_hold_here(mode: str):
    """One row, whose detail names each role."""

    def body() -> None:
        with tempfile.TemporaryDirectory() as folder:
            found = role_trial.examine(list(subjects(Path(folder))), Path(folder))
        assert found.result == "enforced", found
        assert set(found.detail.split(", ")) == {role.name for role in CONFINED}

    as_mode(mode, body)


ALL = policy.compile_refusals(())
"""A filter that refuses nothing."""


@pytest.mark.parametrize(
    ("missing", "seen"),
    [
        (lambda walls: dataclasses.replace(walls, program=ALL), "ptrace: lives, exit 0, not died: SIGSYS"),
        (lambda walls: dataclasses.replace(walls, program=ALL), "fast open by sendmsg: done, not EPERM"),
        (
            lambda walls: dataclasses.replace(walls, ports=(25,)),
            "connect to port 25: EAFNOSUPPORT, not ENETUNREACH",
        ),
        (
            lambda walls: dataclasses.replace(walls, program=ALL),
            "connect elsewhere: EACCES, not EAFNOSUPPORT",
        ),
        (lambda walls: dataclasses.replace(walls, paths=()), "read code: EACCES, not done"),
        (
            lambda walls: dataclasses.replace(walls, program=b"\0" * 8),
            "WallError: [Errno 22] seccomp: Invalid argument",
        ),
    ],
    ids=["seccomp", "fast open", "a port that is refused", "sockets", "rights", "a filter that is refused"],
)
def test_a_role_whose_walls_are_wrong_is_named(tmp_path: Path, missing: Callable[[Walls], Walls], seen: str):
    """Tried, not believed."""
    good, *rest = subjects(tmp_path)
    bad = dataclasses.replace(good, name="leaky", walls=missing(good.walls))
    found = role_trial.examine([bad, *rest], tmp_path)
    assert found.result == "failed"
    assert seen in found.detail
    assert all(part.startswith("leaky: ") for part in found.detail.split("; "))


def test_without_landlock_the_row_says_so(tmp_path: Path):
    """An older kernel: nothing is silent; what the filter alone refuses (signals among it) holds."""

    def body() -> role_trial.Finding:
        old = policy.compile_refusals((Row(errno.ENOSYS, "landlock_create_ruleset", "as an older kernel"),))
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        confine.load_filter(linux.seccomp_filter(old))
        return role_trial.examine(list(subjects(tmp_path)), tmp_path)

    found = forked(body)
    assert (found.layer, found.result) == ("roles", "absent")
    assert found.detail == "no Landlock: files, TCP, signals and abstract sockets not confined"


def forked(body: Callable[[], role_trial.Finding]) -> role_trial.Finding:
    """Its result from a process of its own: a filter is for good."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, json.dumps(dataclasses.astuple(body())).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        told = file.read()
    os.waitpid(pid, 0)
    return role_trial.Finding(*json.loads(told))


def test_the_trial_leaves_nothing_behind(tmp_path: Path):
    """No file in a spool, no process, no descriptor."""
    tried = list(subjects(tmp_path))
    before = sorted(tmp_path.rglob("*")), len(list(Path("/proc/self/fd").iterdir()))
    role_trial.examine(tried, tmp_path)
    assert (sorted(tmp_path.rglob("*")), len(list(Path("/proc/self/fd").iterdir()))) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_status_shows_the_row(tmp_path: Path):
    """`forkd status --json`, `forkd sandbox status`."""
    with Trivial(tmp_path, "zygote,anvil,qmgr,admin") as forkd:
        (answer,) = forkd.ask(b'{"request":"status"}')
        assert answer["result"]["sandbox"]["roles"] == "enforced"
