"""The name of a refused system call, from the kernel's audit record: what is taken from it, what is not."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import select
import socket
import struct

import pytest

from forkd.sandbox import audit, linux, policy
from forkd.sandbox.audit import Refusal
from forkd.sandbox.named import Named
from forkd.sandbox.syscalls import KILL, Row
from tests.support.fake_host import run

ARCH = {"x86_64": "c000003e", "aarch64": "c00000b7"}[platform.machine()]
TEXT = (
    'audit(1795415310.492:10275): auid=4294967295 uid=64000 gid=64000 ses=4294967295 pid=27761 comm="python3"'
    f' exe="/usr/bin/python3.11" sig=31 arch={ARCH} syscall=%d compat=0 ip=0x7f54089214f7 code=0x80000000'
)
KEYCTL = linux.NUMBER.get("keyctl") or {"x86_64": 250, "aarch64": 219}[platform.machine()]


def record(text: str | bytes, kind: int = audit.AUDIT_SECCOMP) -> bytes:
    octets = text.encode() if isinstance(text, str) else text
    return struct.pack("=IHHII", 16 + len(octets), kind, 0, 0, 0) + octets


def test_a_record_names_process_and_call():
    """As kernels write it."""
    refusal = audit.parse(record(TEXT % KEYCTL))
    assert refusal is not None
    assert (refusal.pid, refusal.uid, refusal.call) == (27761, 64000, "keyctl")


def test_a_security_module_may_have_its_say():
    """subj= stands in it where SELinux or AppArmor is on."""
    assert audit.parse(record((TEXT % KEYCTL).replace(" pid=", " subj=unconfined_u:r:t:s0 pid=")))


def test_a_call_of_another_architecture_has_its_number():
    """int 0x80: libseccomp is not asked for tables of other machines."""
    refusal = audit.parse(record((TEXT % 20).replace(ARCH, "40000003")))
    assert refusal is not None
    assert refusal.call == "number 20 of architecture 0x40000003"


def test_a_number_that_nobody_knows_stays_a_number():
    """New kernels have new calls."""
    refusal = audit.parse(record(TEXT % 99999))
    assert refusal is not None
    assert refusal.call == "number 99999"


@pytest.mark.parametrize(
    "name",
    [
        "61202262207069643D31",  # a "b pid=1, as the kernel writes what has a blank or a quote
        '"x,pid=1,syscall=1"',
        '"sig=31"',
    ],
)
def test_what_a_process_calls_itself_changes_nothing(name: str):
    """comm and exe are the process' choice; the rest is the kernel's."""
    refusal = audit.parse(record((TEXT % KEYCTL).replace('"python3"', name)))
    assert refusal is not None
    assert (refusal.pid, refusal.call) == (27761, "keyctl")


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\0" * 15,
        record(TEXT % KEYCTL, kind=1400),
        record((TEXT % KEYCTL).replace('"python3"', '"a" pid=1 comm="b"')),
        record((TEXT % KEYCTL).replace("sig=31", "sig=11")),
        record((TEXT % KEYCTL) + " syscall=1"),
        record((TEXT % KEYCTL).replace("pid=27761", "pid=-1")),
        record((TEXT % KEYCTL).replace("27761", "9" * 3000)),
        record((TEXT % KEYCTL).encode().replace(b"python3", b"\xff\xfe")),
        os.urandom(500),
    ],
    ids=["empty", "short", "type", "twice", "signal", "trailing", "negative", "long", "bytes", "noise"],
)
def test_anything_else_is_nothing(octets: bytes):
    """The whole record or nothing of it."""
    assert audit.parse(octets) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read the audit")
def test_the_kernel_tells_of_a_call_that_it_refused():
    """A process with a filter of ours dies of SIGSYS; its record comes, under its pid."""
    sock = audit.listen()
    if sock is None:
        pytest.skip("the kernel does not let us read its audit here")
    program = policy._program(
        [Row(KILL, "keyctl", "for this test")], default=0x7FFF_0000, architecture=platform.machine()
    )
    filter_ = linux.seccomp_filter(program)
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None)
        libc.prctl(15, b'x" pid=1 ')  # its name
        libc.prctl(38, 1, 0, 0, 0)
        linux.syscall(linux.NUMBER["seccomp"], linux.SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(filter_))
        linux.syscall(KEYCTL, 0, 0)
        os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert os.WTERMSIG(status) == 31
    with sock:
        found: list[Refusal] = []
        while not any(refusal.pid == pid for refusal in found):
            assert select.select([sock], [], [], 5)[0], "no record within 5 s"
            found += audit.read(sock)
    assert next(refusal.call for refusal in found if refusal.pid == pid) == "keyctl"


def test_a_failure_waits_for_its_name_a_moment():
    """The record and the death come by two ways: whichever is first waits for the other."""

    async def both() -> tuple[str, str, str]:
        named = Named()
        named.expected = True
        named.told("p", 7, "keyctl")
        early = await named.name("p", 7)
        waiting = asyncio.ensure_future(named.name("p", 8))
        await asyncio.sleep(0)
        named.told("q", 9, "bpf")
        named.told("p", 8, "ptrace")
        late = await waiting
        return early, late, await named.name("q", 9)

    assert asyncio.run(both()) == ("keyctl", "ptrace", "bpf")


def names(*asked: tuple[str, int], told: list[tuple[str, int, str]]) -> list[str]:
    """What failures without a kernel-checked pid are called, asked at once."""

    async def ask() -> list[str]:
        named = Named()
        named.expected = True
        for each in told:
            named.told(*each)
        return await asyncio.gather(*(named.name(plugin, 0, claimed=pid) for plugin, pid in asked))

    return asyncio.run(ask())


def test_a_claimed_pid_names_it_where_it_is_the_kernels():
    """Its zygote has no PID namespace of its own: its numbers are ours."""
    told = [("p", 7, "keyctl"), ("p", 8, "bpf")]
    assert names(("p", 8), ("p", 7), told=told) == ["bpf", "keyctl"]


def test_a_claimed_pid_takes_nobodys_name():
    """A hostile zygote claims other sandboxes' numbers: those of other plugins, and those the kernel told."""

    async def ask() -> list[str]:
        named = Named()
        named.expected = True
        asked = [("p", 7, 0), ("q", 0, 7), ("p", 0, 7), ("p", 0, 8), ("p", 8, 0)]
        tasks = [asyncio.ensure_future(named.name(one, pid, claimed=claim)) for one, pid, claim in asked]
        await asyncio.sleep(0)
        named.told("p", 7, "keyctl")
        named.told("p", 8, "bpf")
        return await asyncio.gather(*tasks)

    assert asyncio.run(ask()) == ["keyctl", "", "", "", "bpf"]


def test_another_plugins_record_wakes_nobody():
    """Plugin and pid go together."""

    async def ask() -> str:
        named = Named()
        named.expected = True
        waiting = asyncio.ensure_future(named.name("p", 7))
        await asyncio.sleep(0)
        named.told("q", 7, "bpf")
        named.told("p", 7, "keyctl")
        return await waiting

    assert asyncio.run(ask()) == "keyctl"


def test_without_a_pid_it_is_named_after_what_it_can_have_been():
    """It died in its first call, in a PID namespace of its own: never a wrong name, rather more than one."""
    assert names(("p", 2), told=[("p", 70, "keyctl"), ("q", 71, "bpf")]) == ["likely keyctl"]
    assert names(("p", 2), ("p", 3), told=[("p", 70, "mount"), ("p", 71, "mount")]) == ["likely mount"] * 2
    both = names(("p", 2), ("p", 3), told=[("p", 70, "mount"), ("p", 71, "bpf")])
    assert both == ["one of bpf, mount"] * 2


def test_where_nobody_listens_nobody_waits():
    """Not started by root: the number is unknown, and the line is not late for it."""
    assert run(Named().name("p", 7)) == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read the audit")
def test_what_another_process_sends_is_nothing():
    """Whoever may send to a netlink socket of ours is not the kernel."""
    sock = audit.listen()
    if sock is None:
        pytest.skip("the kernel does not let us read its audit here")
    forger = socket.socket(audit.AF_NETLINK, socket.SOCK_RAW, audit.NETLINK_AUDIT)
    with sock, forger:
        try:
            forger.sendto(record(TEXT % KEYCTL), (sock.getsockname()[0], 0))
        except OSError:
            return  # the kernel itself refuses that
        assert select.select([sock], [], [], 5)[0], "it has come"
        assert [refusal for refusal in audit.read(sock) if refusal.pid == 27761] == []
