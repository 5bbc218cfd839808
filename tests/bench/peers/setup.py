"""How do the peers come to this machine? Into the cache folder, never into the system.

Debian's packages are downloaded and unpacked, not installed: OpenSMTPD and Exim conflict with Postfix.
npm's are installed below the cache folder. What is there already stays. What cannot be had is named, and
the rest is set up all the same; the benchmark then leaves that server out.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.peers import cache
from tests.bench.servers import Missing, program

DEBIAN: Final = {
    "OpenSMTPD": ("opensmtpd", "libevent-2.1-7"),
    "Exim": ("exim4-daemon-light", "libgnutls-dane0", "libnsl2", "libidn12"),
    # Without libsocket6-perl and libio-socket-inet6-perl it listens on IPv4 alone, as we want it.
    "qpsmtpd": (
        "qpsmtpd", "libipc-shareable-perl", "libstring-crc32-perl", "libmail-spf-perl", "libnet-dns-perl",
        "libnet-ip-perl", "libmailtools-perl", "libtimedate-perl", "libdigest-hmac-perl",
        "libnetaddr-ip-perl", "liberror-perl", "libclamav-client-perl",
    ),
}  # fmt: skip
"""Peer -> the package itself and libraries that it needs beyond a minimal system's."""
NPM: Final = {"Haraka": "haraka", "nodemailer smtp-server": "smtp-server"}


def setup(say: Callable[[str], None]) -> list[str]:
    """Bring what is missing; the peers that are not to be had, each with its reason.

    Blocks for a minute or so at the first time. Touches nothing but the cache folder.
    """
    folder = cache.folder()
    folder.mkdir(parents=True, exist_ok=True)
    missing: list[str] = []

    def part(name: str, bring: Callable[[], str]) -> None:
        try:
            say(f"{name}: {bring()}")
        except Missing as why:
            missing.append(name)
            say(f"{name}: MISSING: {why}")

    part("smtp-source, smtp-sink, Postfix", _postfix)
    part("aiosmtpd", _aiosmtpd)
    for name, packages in DEBIAN.items():
        part(name, partial(_debian, packages))
    for name, package in NPM.items():
        part(name, partial(_npm, package))
    return missing


def _postfix() -> str:
    program("smtp-source")
    program("smtp-sink")
    program("postfix")
    asked = [str(program("postconf")), "-dh", "mail_version"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() + ", installed"


def _aiosmtpd() -> str:
    if importlib.util.find_spec("aiosmtpd") is None:
        raise Missing("not in this environment (it comes with the extra `dev`)")
    return "installed with the extra `dev`"


def _debian(packages: Sequence[str]) -> str:
    folder = cache.folder() / "debian"
    root = cache.debian_root()
    root.mkdir(parents=True, exist_ok=True)
    program("apt-get")
    program("dpkg")
    for package in packages:
        if not cache.debian_version(package):
            _command(["apt-get", "download", package], folder)
        stamp = folder / f"{package}.unpacked"
        if not stamp.exists():
            archive = sorted(folder.glob(f"{package}_*.deb"))[-1]
            _command(["dpkg", "-x", archive, root], folder)
            stamp.touch()
    return f"{cache.debian_version(packages[0])}, unpacked in {root}"


def _npm(package: str) -> str:
    if shutil.which("npm") is None:
        raise Missing("npm is not installed")
    folder = cache.folder() / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "package.json").exists():
        (folder / "package.json").write_text('{"private": true}\n')
    if not cache.npm_version(package):
        # No install scripts, no optional native modules: neither is needed to receive mail.
        options = ["--no-audit", "--no-fund", "--omit=optional", "--ignore-scripts"]
        _command(["npm", "install", *options, package], folder)
    return f"{cache.npm_version(package)}, in {folder}"


def _command(words: Sequence[str | Path], folder: Path) -> None:
    """Raises Missing with the last thing it said."""
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise Missing(f"{words[0]}: {said[-1]}")
