"""What does each wall stop alone? The same acts, with every other wall left out.

So a wall that stands behind another is seen to stand, and what it says differs from what the first one says.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.escapes.attack import Attack

_WHO_AM_I = r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(void) {
    char text[200];
    sprintf(text,
            "{\"n\":1,\"verdict\":{\"do\":\"deny\",\"code\":550,\"enhanced\":\"5.7.1\",\"text\":\"%s\"}}",
            geteuid() == getuid() ? "still itself" : "another");
    return write(3, text, strlen(text)) < 0;
}
"""


def _setuid_program(folder: Path) -> None:
    program = folder / "setuid"
    subprocess.run(["cc", "-x", "c", "-w", "-o", program, "-"], input=_WHO_AM_I.encode(), check=True)
    program.chmod(0o4755)


FILES = """
def attack(_):
    here = os.path.dirname(__file__)
    new = here + "/new"
    paths = ("/etc/passwd", FACTS["secret"], "/", "/proc/self/mem")
    said = {tried(os.open, path, os.O_RDONLY) for path in paths}
    return " ".join(sorted(said | {
        tried(open, __file__, "r+b"), tried(open, new, "w"), tried(os.mkdir, new),
        tried(os.symlink, "x", new),
        tried(os.unlink, __file__), tried(os.truncate, __file__, 0), tried(os.mkfifo, new),
        tried(os.open, here, os.O_TMPFILE | os.O_RDWR), tried(os.execv, "/bin/true", ["true"]),
    }))
"""

ATTACKS = (
    Attack(
        name="45-46 files, by Landlock alone",
        only=("files",),
        by=("files",),
        code=FILES,
        says="EACCES",
    ),
    Attack(
        name="54 TCP, by Landlock alone",
        only=("network",),
        by=("network",),
        code="""
def attack(_):
    tcp, udp = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here = ("127.0.0.1", 0)
    return " ".join((tried(tcp.connect, ("127.0.0.1", 9)), tried(tcp.bind, here), tried(udp.bind, here)))
""",
        says="EACCES EACCES done",  # UDP: the filter's, and the network namespace's
    ),
    Attack(
        name="19 signals, by Landlock alone",
        only=("signals",),
        by=("signals",),
        code="""
def attack(_):
    return " ".join(sorted({tried(os.kill, pid, 0) for pid in (FACTS["worker"], FACTS["master"], 1)}))
""",
        says="EPERM",
    ),
    Attack(
        name="58 abstract sockets, by Landlock alone",
        only=("signals",),
        by=("signals",),
        code="""
def attack(_):
    return tried(socket.socket(socket.AF_UNIX).connect, chr(0) + FACTS["abstract"])
""",
        says="EPERM",
    ),
    Attack(
        name="1-2 processes and threads, by the limits alone",
        only=("rlimits", "uid"),
        by=("rlimits",),
        code="""
def attack(_):
    said = [tried(os.fork), tried(_thread.start_new_thread, print, ())]
    return " ".join(said)
""",
        says="EAGAIN RuntimeError",
    ),
    Attack(
        name="11 descriptors, by the limits alone",
        only=("rlimits",),
        by=("rlimits",),
        code="""
def attack(_):
    held = []
    def hoard():
        while len(held) < 100: held.append(os.dup(0))
    return f"{tried(hoard)} {max(held)}"
""",
        says="EMFILE 15",
        spec={"open_files": 16},
    ),
    Attack(
        name="12 disk, by the limits alone",
        only=("rlimits",),
        by=("rlimits",),
        code="""
def attack(_):
    place = f"/tmp/forkd-escape-{os.getpid()}"
    fd = os.open(place, os.O_CREAT | os.O_WRONLY, 0o600)
    os.unlink(place)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    return tried(os.write, fd, b"x") + " " + tried(os.posix_fallocate, fd, 0, 4096)
""",
        says="EFBIG EFBIG",
    ),
    Attack(
        name="15 locked memory, by the limits alone",
        only=("rlimits",),
        by=("rlimits",),
        code="""
def attack(_):
    page = libc.mmap(None, 4096, 3, 0x22, -1, 0)
    return call("mlock", page, 4096) + " " + call("mlockall", 1)
""",
        says="EPERM EPERM",
    ),
    Attack(
        name="21-23 the zygote's memory, by its flag alone",
        only=("non_dumpable",),
        by=("non_dumpable",),
        code="""
def attack(_):
    zygote = os.getppid()
    files = [f"/proc/{zygote}/{name}" for name in ("mem", "environ", "maps")]
    said = {tried(open, path, "rb") for path in files}
    return " ".join(sorted(said | {call("ptrace", 0x4206, zygote, 0, 0)}))
""",
        says="EACCES EPERM",
    ),
    Attack(
        name="42 a program that is setuid, by no_new_privs alone",
        only=("uid",),
        by=("no_new_privs",),
        modes=("root",),
        code="""
def attack(_):
    os.execv(os.path.dirname(__file__) + "/setuid", ["setuid"])
""",
        says="still itself",
        spec={"prepare": _setuid_program},
    ),
    Attack(
        name="19-24 other people's processes, by the uid alone",
        only=("uid",),
        by=("uid",),
        modes=("root",),
        code="""
def attack(_):
    worker = FACTS["worker"]
    return " ".join((
        tried(os.kill, worker, 0), tried(resource.prlimit, worker, resource.RLIMIT_CORE),
        tried(os.setpriority, os.PRIO_PROCESS, worker, 0), tried(open, f"/proc/{worker}/environ"),
        call("ptrace", 0x4206, worker, 0, 0),
    ))
""",
        says="EPERM EPERM EPERM EACCES EPERM",
    ),
    Attack(
        name="45-46 other people's files, by the uid alone",
        only=("uid",),
        by=("uid",),
        modes=("root",),
        code="""
def attack(_):
    new = os.path.dirname(__file__) + "/new"
    return " ".join(sorted({
        tried(open, "/etc/shadow"), tried(open, FACTS["secret"]), tried(open, new, "w"), tried(os.mkdir, new),
        tried(open, __file__, "r+"), tried(os.unlink, __file__),
    }))
""",
        says="EACCES",
    ),
    Attack(
        name="19 most of it, by the zygote's filter alone",
        only=("seccomp",),
        by=("seccomp",),
        code="""
def attack(_):
    return " ".join((
        tried(os.kill, FACTS["worker"], 0), tried(made, "/tmp"), tried(socket.socket),
        tried(socket.socketpair), tried(os.pipe), tried(mmap.mmap, -1, 4096), tried(os.memfd_create, "x"),
        tried(os.execv, "/bin/true", ["x"]), tried(os.setsid), tried(_thread.start_new_thread, print, ()),
        tried(os.mkdir, os.path.dirname(__file__) + "/new"), call("clone3", 0, 0),
        call("ioctl", 0, 0x5412, 0),
    ))
""",
        says=("EPERM EACCES EACCES EACCES EPERM EACCES EPERM EACCES EPERM RuntimeError EACCES ENOSYS ENOTTY"),
    ),
    Attack(
        name="38 what only a zygote needs, by the sandbox's filter alone",
        only=("seccomp child",),
        by=("seccomp child",),
        code="""
def attack(_):
    fd = os.open(__file__, os.O_RDONLY)
    return " ".join((
        tried(os.close, 4), call("fcntl", 4, 10, 0), call("dup3", 0, 4, 0), tried(os.fork),
        call("mmap", 0, 4096, 5, 2, fd, 0), call("timer_create", 0, 0, 0),
        tried(resource.setrlimit, resource.RLIMIT_NOFILE, (9, 9)), tried(os.setpriority, 0, 0, 15),
    ))
""",
        says="EPERM EPERM EPERM EPERM EACCES EPERM ValueError EPERM",
    ),
    Attack(
        name="54-55 any network, by the namespaces alone",
        only=("namespaces",),
        by=("namespaces",),
        code="""
def attack(_):
    said = set()
    for address in (("127.0.0.1", 9), ("192.0.2.1", 53)):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            said.add(tried(socket.socket(socket.AF_INET, kind).connect, address))
    return " ".join(sorted(said))
""",
        says="ENETUNREACH",
    ),
    Attack(
        name="58 abstract sockets, by the namespaces alone",
        only=("namespaces",),
        by=("namespaces",),
        code="""
def attack(_):
    return tried(socket.socket(socket.AF_UNIX).connect, chr(0) + FACTS["abstract"])
""",
        says="ECONNREFUSED",
    ),
    Attack(
        name="19 other processes, by the namespaces alone",
        only=("namespaces",),
        by=("namespaces",),
        code="""
def attack(_):
    shared = [name for name, link in FACTS["spaces"].items() if os.readlink(f"/proc/self/ns/{name}") == link]
    return f"{tried(os.kill, FACTS['worker'], 0)} {shared}"
""",
        says=r"ESRCH \[\]",
    ),
    Attack(
        name="45-47 files, by the mount root alone",
        only=("namespaces", "mount_root"),
        by=("mount_root",),
        code="""
def attack(_):
    here = os.path.dirname(__file__)
    said = {tried(os.open, path, os.O_RDONLY) for path in ("/etc/passwd", FACTS["secret"], "/proc/self/mem")}
    said |= {tried(made, folder) for folder in (here, "/tmp", "/dev/shm", "/")}
    said |= {tried(open, __file__, "r+b"), tried(os.unlink, __file__), tried(os.chmod, __file__, 0o777)}
    return " ".join(sorted(said))
""",
        says="ENOENT EROFS|EBUSY ENOENT EROFS",
    ),
    Attack(
        name="57 path sockets, by the mount root alone",
        only=("namespaces", "mount_root"),
        by=("mount_root",),
        code="""
def attack(_):
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return tried(peer.connect, FACTS["socket"]) + " " + tried(peer.connect, "/run/docker.sock")
""",
        says="ENOENT ENOENT",
    ),
    Attack(
        name="61 descriptors upward, by the worker alone",
        only=("rlimits",),
        by=("worker",),
        code="""
def attack(_):
    channel = socket.socket(fileno=3)
    said = {tried(socket.send_fds, channel, [b"x"], [0] * count) for count in (1, 50, 253)}
    channel.detach()
    return " ".join(sorted(said))
""",
        # Refused to the sender since Linux 6.16, before that seen by the worker. What others of this uid have
        # in flight counts against the sandbox' own limit of descriptors (unix(7)), and may refuse it sooner.
        says="(EPERM|ETOOMANYREFS)( ETOOMANYREFS)?",
        fails=("protocol", "descriptors"),
    ),
)
