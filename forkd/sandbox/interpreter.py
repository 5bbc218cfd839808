"""What does a Python interpreter itself read? Asked of it once, by starting it as a zygote is started.

Its standard library and the folders of its shared libraries, wherever a distribution, a version manager or
a build of one's own has put them: no layout is written down here.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from forkd.sandbox import executables

FLAGS = ("-I", "-S", "-B", "-X", "utf8")
"""Isolated (no PYTHON* variables, no user folder), no site-packages, no .pyc written, always UTF-8."""
BOOT = Path(__file__).with_name("boot.py")
_ANSWER_S = 30.0


class InterpreterError(Exception):
    """What it reads is not known; the text is for the admin."""


def environment(python: str, *, lazy: bool = False) -> dict[str, str]:
    """Of a zygote under that interpreter.

    lazy: without LD_BIND_NOW, which would make every dlopen() bind at once as well: a compiled plugin may
    refer to functions that it never calls, and that nobody has.
    LD_BIND_NOW: symbols bound once, at the start, are a dozen page faults fewer in every sandbox. TZ: libc
    would stat /etc/localtime, which a zygote cannot. LD_ORIGIN_PATH: an interpreter that finds its own
    library beside itself ($ORIGIN) asks /proc where it is, and a zygote may have none.
    """
    now = {} if lazy else {"LD_BIND_NOW": "1"}
    return now | {"TZ": "UTC0", "LD_ORIGIN_PATH": os.path.dirname(os.path.realpath(python))}  # noqa: PTH120


def paths(python: str, *, uid: int | None = None, gid: int | None = None) -> tuple[str, ...]:
    """The files and folders it reads, itself and its loader among them.

    uid, gid  whom to ask as: it is not to run with our rights. Blocks for some 30 ms, the first time.
    (): it ended well and told nothing: too old, or no Python; a zygote under it will say what is wrong.
    Raises InterpreterError when it could not be asked, be it for the moment.
    """
    try:
        key = (python, Path(python).stat().st_mtime_ns)
        if key not in _known:
            _known[key] = _ask(python, uid, gid)
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().rpartition(b"\n")[2].decode("utf-8", "backslashreplace")
        said = f"status {error.returncode}: {last or 'nothing said'}"
        raise InterpreterError(f"{python} was asked what it reads, and failed with {said}") from error
    except (OSError, ValueError, subprocess.SubprocessError, executables.ExecutableError) as error:
        raise InterpreterError(f"{python} cannot be asked what it reads: {error}") from error
    return _known[key]


_known: dict[tuple[str, int], tuple[str, ...]] = {}
"""Interpreter and the time of its last change -> its paths: the same whoever asks."""


def _ask(python: str, uid: int | None, gid: int | None) -> tuple[str, ...]:
    ids: dict[str, Any] = {} if uid is None else {"user": uid, "group": gid, "extra_groups": ()}
    done = subprocess.run(
        [python, *FLAGS, str(BOOT), "paths"],
        env=environment(python),
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_ANSWER_S,
        check=True,
        **ids,
    )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        return ()
    if not isinstance(found, list) or not all(isinstance(path, str) for path in found):
        return ()
    return tuple(dict.fromkeys([*map(str, executables.needed((python,))), *found])) if found else ()
