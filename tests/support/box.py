"""A machine of our own for a test: Debian's systemd as PID 1, over this machine's own packages.

Root of it is an overlay, so that nothing that is done there is done here; processes, mounts, network, names
and cgroups are namespaces. Units come from one folder alone (SYSTEMD_UNIT_PATH): none of this machine's is
started. The checkout is at /opt/forkd, its interpreter's environment at /opt/python. What PID 1 says is in
its journal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.support.people import installation
from tests.support.waiting import wait_for

SYSTEMD = Path("/lib/systemd/systemd")
UNITS = Path("/etc/systemd/system")
BOOT_S = 60
"""It takes some 2 s; this machine may be busy."""

STOCK_UNITS = (
    "basic.target", "exit.target", "final.target", "multi-user.target", "network-online.target",
    "network.target", "nss-user-lookup.target", "paths.target", "shutdown.target", "slices.target",
    "sockets.target", "sockets.target.wants/systemd-journald-dev-log.socket",
    "sockets.target.wants/systemd-journald.socket", "sysinit.target",
    "sysinit.target.wants/systemd-journald.service", "systemd-journald-dev-log.socket",
    "systemd-journald.service", "systemd-journald.socket", "timers.target", "umount.target",
)  # fmt: skip
"""Of /lib/systemd/system: the targets that units name, and the journal."""

_OWN = ("unshare", "-m", "-p", "-f", "--kill-child", "-C", "-n", "-u", "-i")
_SETUP = """
set -eu
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$1/root"
cd "$1/root"
mkdir -p opt/forkd opt/python
mount --rbind "$2" opt/forkd
mount --rbind "$4" opt/python
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mkdir -p sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do
    : > "dev/$name"
    mount --bind "/dev/$name" "dev/$name"
done
ln -s pts/ptmx dev/ptmx
mkdir dev/shm
mount -t tmpfs -o mode=1777 tmpfs dev/shm
rm -rf etc/systemd/system var/lib/forkd etc/forkd
mkdir -p etc/systemd/system
cp -a "$3/." .
mkdir .before
pivot_root . .before
umount -l .before
rmdir .before
mount --make-rshared /
read -r _
exec < dev/null
exec env -i container=forkd PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \\
    SYSTEMD_UNIT_PATH=/etc/systemd/system /lib/systemd/systemd --system --unit=multi-user.target \\
    --log-target=journal --log-level=notice --show-status=0
"""


def lack() -> str:
    """Why there can be none on this machine; empty: there can."""
    if os.geteuid() != 0:
        return "systemd container: only root can make one"
    if not SYSTEMD.exists():
        return "systemd container: Debian's package systemd is not here"
    if _cgroups() is None:
        return "systemd container: cgroup v2 is not mounted"
    done = subprocess.run(
        [*_OWN, "sh", "-c", "mount -t tmpfs tmpfs /mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"systemd container: {done.stderr.strip()}" if done.returncode else ""


def _cgroups() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return Path(line.split(" ")[4])
    return None


@dataclasses.dataclass
class Box:
    """From the with block's beginning to its end. `files`: path there -> text, written before it starts."""

    files: dict[str, str] = dataclasses.field(default_factory=dict)
    folder: Path = dataclasses.field(
        default_factory=lambda: Path(tempfile.mkdtemp(prefix="box-", dir="/var/tmp"))
    )
    process: subprocess.Popen[bytes] | None = None
    pid: int = 0
    """Of its PID 1, here."""

    def __enter__(self) -> Box:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        root, seed = self.folder / "root", self.folder / "seed"
        root.mkdir()
        for path, text in self._all_files().items():
            target = seed / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.parent.suffix == ".wants":
                target.symlink_to(f"../{target.name}")
                continue
            target.write_text(text)
            target.chmod(0o755 if text.startswith("#!") else 0o644)
        for folder in seed.rglob("*/"):
            folder.chmod(0o755)
        seed.chmod(0o755)
        at = _cgroups()
        assert at is not None
        self._cgroup = at / self.folder.name
        self._cgroup.mkdir()
        checkout, python = installation()
        join = f'echo $$ > "$1/cgroup.procs" && shift && exec {" ".join(_OWN)} sh -c "$@"'
        with self.console.open("wb") as console:
            self.process = subprocess.Popen(
                [
                    "sh",
                    "-c",
                    join,
                    "sh",
                    self._cgroup,
                    _SETUP,
                    "sh",
                    root,
                    checkout,
                    seed,
                    Path(python).parent.parent,
                ],
                stdin=subprocess.PIPE,
                stdout=console,
                stderr=console,
            )
        wait_for(self._children, timeout_s=BOOT_S, what="PID 1 of the box")
        # Who made the namespaces is not in the top cgroup of theirs: it could hand on no controllers.
        (at / "cgroup.procs").write_text(str(self.process.pid))
        assert self.process.stdin is not None
        with self.process.stdin as go:
            go.write(b"go\n")
        self.pid = wait_for(self._first, timeout_s=BOOT_S, what="PID 1 of the box")
        wait_for(self._booted, timeout_s=BOOT_S, what="the box is up")

    def _all_files(self) -> dict[str, str]:
        units = Path("/lib/systemd/system")
        stock = {
            f"{UNITS}/{name}": (units / name).read_text() for name in STOCK_UNITS if (units / name).exists()
        }
        return stock | self.files

    @property
    def console(self) -> Path:
        return self.folder / "console"

    def _children(self) -> list[str]:
        assert self.process is not None
        assert self.process.poll() is None, self.console.read_text()
        pid = self.process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    def _first(self) -> int:
        found = self._children()
        if not found or Path(f"/proc/{found[0]}/comm").read_text() != "systemd\n":
            return 0
        return int(found[0])

    def _booted(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.console.read_text()
        done = self.run("systemctl", "is-system-running")
        return done.stdout.strip() in ("running", "degraded")

    def command(self, *words: str | Path) -> list[str]:
        """To be run here, in the box."""
        inside = ("nsenter", "-t", str(self.pid), "-m", "-p", "-C", "-n", "-u", "-i", "--root", "--wd")
        return [*inside, "env", "-i", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
                f"SYSTEMD_UNIT_PATH={UNITS}", *map(str, words)]  # fmt: skip

    def run(self, *words: str | Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return subprocess.run(
            self.command(*words),
            capture_output=True, text=True, check=False, timeout=timeout_s, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def shown(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit (systemctl show)."""
        done = self.run("systemctl", "show", unit, *(f"--property={name}" for name in names))
        return dict(line.split("=", 1) for line in done.stdout.splitlines())

    def journal(self, unit: str, *more: str) -> str:
        """What it has logged; `more` options say what of it."""
        return self.run("journalctl", "-u", unit, "-o", "cat", "--no-pager", "-q", *more).stdout

    def path(self, inside: str) -> Path:
        """A file of the box, as it is seen from here."""
        return Path(f"/proc/{self.pid}/root") / inside.lstrip("/")

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            # The end of a PID namespace's first process is the end of all in it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid or self.process.pid, signal.SIGKILL)
            self.process.wait(30)
        if (at := getattr(self, "_cgroup", None)) is not None:
            wait_for(lambda: _gone(at), timeout_s=20, what=f"{at} is empty")
        shutil.rmtree(self.folder, ignore_errors=True)


def _gone(folder: Path) -> bool:
    for each in sorted((path for path in folder.rglob("*/")), reverse=True):
        with contextlib.suppress(OSError):
            each.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()
