"""A real Dovecot that knows passwords and nothing else: its auth service on a unix socket."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.daemon import alive, children, free_port, kill_left
from tests.support.waiting import wait_for

SERVER = shutil.which("dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class _Running:
    """A Dovecot with a configuration of its own, from start() to stop().

    folder  all that it has; with dovecot.conf in it
    socket  shows that it serves
    """

    folder: Path
    socket: Path
    _process: subprocess.Popen[bytes] | None = None

    def _start(self) -> None:
        assert SERVER is not None
        self._process = subprocess.Popen(
            [SERVER, "-F", "-c", str(self.folder / "dovecot.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def _lives(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._process.stderr and self._process.stderr.read()
        return True

    def stop(self) -> None:
        """End it: Dovecot's own processes outlive its master as long as they have clients."""
        if self._process is not None:
            pids = children(self._process.pid)
            self._process.terminate()
            self._process.wait(20)
            kill_left(pids)
            wait_for(lambda: not any(alive(pid) for pid in pids), timeout_s=10)
            self.socket.unlink(missing_ok=True)
            if self._process.stderr is not None:
                self._process.stderr.close()
            self._process = None

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Dovecot(_Running):
    """From start() to stop(); may be started again on the same socket.

    users       login -> password, or `!` for one that always is Dovecot's own trouble
    mechanisms  as auth_mechanisms has them
    """

    def __init__(self, users: dict[str, str], *, mechanisms: str = "plain login scram-sha-256") -> None:
        # Not tmp_path: the path of a unix socket has 107 octets at most.
        self.folder = Path(tempfile.mkdtemp(prefix="dovecot-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self.socket = self.folder / "auth"
        lines = [f"{login}:{{PLAIN}}{password}::::::\n" for login, password in users.items()]
        (self.folder / "passwd").write_text("".join(lines))
        (self.folder / "passwd").chmod(0o644)
        me = getpass.getuser()
        people = "" if os.geteuid() == 0 else f"default_internal_user = {me}\ndefault_login_user = {me}\n"
        (self.folder / "dovecot.conf").write_text(
            f"base_dir = {self.folder}/run\n"
            f"log_path = {self.folder}/log\n"
            "ssl = no\n"
            "protocols =\n"
            "auth_failure_delay = 0\n"
            f"auth_mechanisms = {mechanisms}\n"
            f"passdb {{\n driver = passwd-file\n args = username_format=%u {self.folder}/passwd\n}}\n"
            "userdb {\n driver = static\n args = uid=nobody gid=nogroup home=/tmp\n}\n"
            f"service auth {{\n unix_listener {self.socket} {{\n  mode = 0666\n }}\n}}\n{people}"
        )

    def start(self) -> Dovecot:
        """Run it; returns when the socket is there."""
        if SERVER is None:
            pytest.skip("dovecot is not installed")
        self._start()

        def ready() -> bool:
            return self._lives() and self.socket.exists()

        wait_for(ready, timeout_s=20)
        return self

    def __enter__(self) -> Dovecot:
        return self.start()


class MailStore(_Running):
    """A real Dovecot that takes mail by LMTP on a unix socket and by TCP, into Maildirs of virtual users.

    users  login -> most messages in his mailbox; 0: as many as come
    """

    def __init__(self, users: dict[str, int]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="store-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self.socket = self.folder / "lmtp"
        self.port = free_port()
        owner = "nobody" if os.geteuid() == 0 else getpass.getuser()
        mail = self.folder / "mail"
        mail.mkdir()
        shutil.chown(mail, owner)
        lines = [
            f"{login}:{{PLAIN}}x::::::" + (f"userdb_quota_rule=*:messages={most}\n" if most else "\n")
            for login, most in users.items()
        ]
        (self.folder / "passwd").write_text("".join(lines))
        (self.folder / "passwd").chmod(0o644)
        me = getpass.getuser()
        people = "" if os.geteuid() == 0 else f"default_internal_user = {me}\ndefault_login_user = {me}\n"
        uid = pwd.getpwnam(owner)
        (self.folder / "dovecot.conf").write_text(
            f"base_dir = {self.folder}/run\n"
            f"state_dir = {self.folder}/state\n"
            f"log_path = {self.folder}/log\n"
            "ssl = no\n"
            "protocols = lmtp\n"
            "postmaster_address = postmaster@store.example\n"
            "hostname = store.example\n"
            f"first_valid_uid = 1\nmail_uid = {uid.pw_uid}\nmail_gid = {uid.pw_gid}\n"
            f"mail_location = maildir:{mail}/%u\n"
            "mail_plugins = quota\n"
            "plugin {\n quota = count:User quota\n quota_vsizes = yes\n"
            " quota_exceeded_message = no room for more\n}\n"
            "recipient_delimiter = +\n"
            "auth_mechanisms = plain\n"
            f"passdb {{\n driver = passwd-file\n args = username_format=%u {self.folder}/passwd\n}}\n"
            f"userdb {{\n driver = passwd-file\n args = username_format=%u {self.folder}/passwd\n"
            f" override_fields = uid={uid.pw_uid} gid={uid.pw_gid} home={mail}/%u\n}}\n"
            "service lmtp {\n process_min_avail = 2\n"
            f" unix_listener {self.socket} {{\n  mode = 0666\n }}\n"
            f" inet_listener lmtp {{\n  address = 127.0.0.1\n  port = {self.port}\n }}\n}}\n{people}"
        )

    def start(self) -> MailStore:
        """Run it; returns when it answers."""
        if SERVER is None or not Path("/usr/lib/dovecot/lmtp").exists():
            pytest.skip("dovecot is not installed: apt-get install dovecot-lmtpd")
        self._start()

        def answers() -> bool:
            self._lives()
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.settimeout(5)
                    probe.connect(str(self.socket))
                    return probe.recv(3) == b"220"
            except OSError:
                return False

        wait_for(answers, timeout_s=30)
        return self

    def mails(self, user: str) -> list[bytes]:
        """What doveadm finds in his mailbox: each message, as Dovecot gives it out."""
        found = subprocess.run(
            [
                "doveadm", "-c", str(self.folder / "dovecot.conf"), "-f", "pager",
                "fetch", "-u", user, "text", "mailbox", "INBOX",
            ],
            capture_output=True, check=True, timeout=120,
        )  # fmt: skip
        return [each.partition(b"\n")[2] for each in found.stdout.split(b"\f\n") if each.strip()]

    def count(self, user: str) -> int:
        """Messages in his mailbox, by doveadm."""
        found = subprocess.run(
            [
                "doveadm", "-c", str(self.folder / "dovecot.conf"), "-f", "flow",
                "mailbox", "status", "-u", user, "messages", "INBOX",
            ],
            capture_output=True, check=True, timeout=120, text=True,
        )  # fmt: skip
        return int(found.stdout.rpartition("messages=")[2])

    def log_text(self) -> str:
        """Dovecot's own words."""
        return (self.folder / "log").read_text(errors="replace") if (self.folder / "log").exists() else ""

    def __enter__(self) -> MailStore:
        return self.start()
