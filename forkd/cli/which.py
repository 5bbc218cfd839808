"""Which configuration does a command mean where none is named? One rule for all of them.

1. `--config FILE`
2. the environment's FORKD_CONFIG; set to nothing it says: no file, the defaults
3. where a forkd was started without a file (./var is its), or ./forkd.toml lies: the defaults. Whoever works
   there means what is there; the file itself is read only where it is named, since it may be anybody's
4. /etc/forkd/forkd.toml, where it may be read
5. the defaults
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from forkd.config.load import data_dir_of
from forkd.config.problems import display_path
from forkd.rpc import places

ENVIRONMENT: Final = "FORKD_CONFIG"
SYSTEM_CONFIG: Final = Path("/etc/forkd/forkd.toml")
"""Where packages put it."""

_HERE: Final = "forkd.toml"


@dataclasses.dataclass(frozen=True, slots=True)
class Which:
    """The configuration, and who named it.

    file  None: the defaults
    by    --config | FORKD_CONFIG | SYSTEM_CONFIG | nothing: nobody did
    """

    file: Path | None
    by: str = ""

    def hint(self) -> str:
        """For who finds no daemon there: what he may have meant, or what is to be done."""
        if self.file is None:
            return (
                _meant() or "name another one by --config FILE or --data-dir DIR, or start one by `forkd run`"
            )
        shown = display_path(self.file)
        start = {
            ENVIRONMENT: f"{ENVIRONMENT} names {shown}: start it by `forkd run`",
            str(SYSTEM_CONFIG): f"{shown} says so: start it by `systemctl start forkd` or `forkd run`",
        }.get(self.by, f"start it by `forkd run --config {shown}`")
        return f"{start}; if its data_dir has just been changed, name the old one by --data-dir DIR"


def which(
    named: Path | None = None,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    system: Path = SYSTEM_CONFIG,
) -> Which:
    """The one that is meant. Looks at files, reads none.

    named  what --config says
    """
    if named is not None:
        return Which(named, "--config")
    here = Path.cwd() if folder is None else folder
    said = (os.environ if environment is None else environment).get(ENVIRONMENT)
    if said is not None:
        return Which(here / said if said else None, ENVIRONMENT)
    if not (here / _HERE).is_file() and not _served(here) and os.access(system, os.R_OK):
        return Which(system, str(SYSTEM_CONFIG))
    return Which(None)


def _served(here: Path) -> bool:
    """Was a forkd started there without a file? In `/` ./var is the system's, /var/run/lock a folder."""
    lock = places.run_folder(data_dir_of(None, cwd=here)) / places.LOCK
    return os.path.isfile(lock)  # noqa: PTH113 - Path.is_file raises where the folder may not be searched


def left_out(chosen: Which) -> str:
    """A word about the ./forkd.toml that is not read; empty: there is none."""
    lies = chosen.file is None and not chosen.by and Path(_HERE).is_file()
    return f"./{_HERE} is not read; to use it: --config {_HERE}" if lies else ""


def _meant() -> str:
    if Path(_HERE).is_file():
        return f"did you mean --config {_HERE}?"
    if SYSTEM_CONFIG.is_file() and not os.access(SYSTEM_CONFIG, os.R_OK):
        return f"{SYSTEM_CONFIG} may not be read by you: name its data_dir by --data-dir DIR"
    return ""
