"""nodemailer, the mail client of Node.js, installed once into a folder of its own outside the checkout."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

VERSION = "10.6.0"
FOLDER = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / f"forkd-tests/nodemailer-{VERSION}"
)
INSTALL_S = 120

_SCRIPT = """
const nodemailer = require("nodemailer");
const { transport, mail } = JSON.parse(require("fs").readFileSync(0, "utf8"));
nodemailer.createTransport(transport).sendMail(mail).then(
  (info) => console.log(JSON.stringify({ response: info.response })),
  ({ code, response, message }) => console.log(JSON.stringify({ code, response, message })));
"""


def send(transport: dict[str, Any], mail: dict[str, Any]) -> dict[str, Any]:
    """What sendMail() came to: response, or those of its error. Skips where npm cannot install."""
    modules = _installed()
    told = subprocess.run(
        ["node", "-e", _SCRIPT],
        input=json.dumps({"transport": transport, "mail": mail}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PATH": os.environ["PATH"], "NODE_PATH": str(modules)},
    )
    answer: dict[str, Any] = json.loads(told.stdout)
    return answer


def _installed() -> Path:
    """Its folder; one test process at a time installs or looks."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _install()


def _install() -> Path:
    modules = FOLDER / "node_modules"
    if (modules / "nodemailer" / "package.json").exists():
        return modules
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    try:
        told = subprocess.run(
            [
                *("npm", "install", "--prefix", str(FOLDER), "--no-audit", "--no-fund", "--ignore-scripts"),
                f"nodemailer@{VERSION}",
            ],
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm could not install nodemailer: no answer of the registry in time")
    if told.returncode != 0:
        reason = told.stderr.strip().splitlines()
        pytest.skip(f"npm could not install nodemailer: {reason[0] if reason else told.returncode}")
    return modules
