"""plugins/INDIMAIL.md, "Filters": what a filter finds, and what it does not."""

from __future__ import annotations

import shutil
import socket

import pytest

from tests.programs.test_runs import MAIL, ROOT_TOO, in_stage
from tests.support import filters
from tests.support.sandboxes import Stage

LOOKS = """
exec 2>/dev/null
if : </dev/stdin; then echo stdin: there; else echo stdin: none; fi
if : >/dev/stdout; then echo stdout: there; else echo stdout: none; fi
if : >/tmp/forkd-filter-was-here; then echo file: written; else echo file: none; fi
if exec 9<>/dev/tcp/127.0.0.1/PORT; then echo network: there; else echo network: none; fi
"""


@pytest.mark.parametrize("mode", ROOT_TOO)
def test_what_a_filter_lacks(mode: str):
    """No network, no temporary files, no /dev/stdin; what it reads is there all the same."""
    if shutil.which("bash", path="/bin") is None:
        pytest.skip("lack of the machine: bash is not installed")

    def act(st: Stage) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            text = LOOKS.replace("PORT", str(server.getsockname()[1]))
            filters.start(st, filters.script(st, text, interpreter="/bin/bash"))
            assert filters.once(st, MAIL).message == b"stdin: none\nstdout: none\nfile: none\nnetwork: none\n"

    in_stage(mode, act)
