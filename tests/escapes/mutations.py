"""Would the attacks be seen to succeed if a wall were not there? Each wall is left out, and they must.

A wall that a zygote's specification can leave out is left out there. The others are taken out of a copy of
the source, in a folder of its own, and the attacks run from that copy.
"""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

from tests.escapes.attack import Attack, Outcome, perform
from tests.escapes.tables import ATTACKS
from tests.support.sandboxes import ROOT, StartFailed
from tests.support.walls import WALLS

_TREE = Path(__file__).parent.parent.parent


@dataclasses.dataclass(frozen=True)
class Patch:
    """One change of the source: `old`, which must stand there exactly once, becomes `new`."""

    file: str
    old: str
    new: str


PATCHES: dict[str, tuple[Patch, ...]] = {
    "leash": (Patch("forkd/sandbox/child.py", "linux.O_ASYNC | os.O_RDWR", "os.O_RDWR"),),
    "cpu timer": (
        Patch(
            "forkd/sandbox/child.py", "linux.SignalEvent(0, _SIGKILL, 0, b", "linux.SignalEvent(0, 0, 1, b"
        ),
    ),
    "no_new_privs": (Patch("forkd/sandbox/confine.py", "prctl(linux.PR_SET_NO_NEW_PRIVS, 1)", "pass"),),
    "closed descriptors": (
        Patch("forkd/sandbox/child.py", "(BROKER_FD if broker else LEASH_FD) + 1,", "4096,"),
        Patch("forkd/sandbox/launch.py", "os.closerange(len(high), ", "os.closerange(4096, "),
        Patch(
            "forkd/sandbox/zygote.py",
            'linux.call("close_range", children + 1,',
            'linux.call("close_range", 4096,',
        ),
    ),
    "empty environment": (
        Patch("forkd/sandbox/interpreter.py", "return now | {", "return dict(os.environ) | now | {"),
    ),
}
"""Wall -> how it is taken out of the source."""


def survives(attack: Attack, mode: str) -> Outcome | None:
    """Try `attack` without all that is declared to stop it. None: it went otherwise, as it must.

    A zygote that does not even start without that wall would show nothing: that is raised.
    """
    off = attack.stops(mode)
    assert off <= WALLS, "only walls that a specification can leave out"
    try:
        return perform(attack, mode, off=off)
    except AssertionError as error:
        if StartFailed.__name__ in str(error) and not attack.refused:
            raise  # from the process of another user
        return None


def switchable(mode: str) -> list[Attack]:
    """Attacks of `mode` that walls stop which a specification can leave out."""
    return [attack for attack in ATTACKS if attack.possible(mode) and attack.stops(mode) <= WALLS]


def stopped_by(wall: str, mode: str) -> list[Attack]:
    """Attacks that nothing but `wall` stops."""
    return [attack for attack in ATTACKS if attack.stops(mode) == {wall} and attack.possible(mode)]


def walls_here(mode: str) -> list[str]:
    """Every wall that is up in `mode`, in a fixed order."""
    absent = set() if mode.startswith(ROOT) else {"uid", "no_new_privs"}
    return sorted((WALLS | set(PATCHES)) - absent)


def patched_tree(folder: Path, patches: tuple[Patch, ...]) -> Path:
    """A copy of the source with `patches`, readable for everybody."""
    tree = folder / "tree"
    for part in ("forkd", "tests/escapes", "tests/support"):
        shutil.copytree(_TREE / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    for patch in patches:
        file = tree / patch.file
        text = file.read_text()
        assert text.count(patch.old) == 1, f"{patch.file} has no single {patch.old!r}: adapt mutations.py"
        file.write_text(text.replace(patch.old, patch.new))
    for path in (folder, tree, *tree.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tree


def run_in(tree: Path, attacks: list[Attack], mode: str) -> subprocess.CompletedProcess[str]:
    """The attacks, from that source."""
    command = [sys.executable, "-m", "tests.escapes", "--mode", mode, "--tables-only", "--jobs", "1"]
    for attack in attacks:
        command += ["--attack", attack.name]
    return subprocess.run(command, cwd=tree, text=True, capture_output=True, timeout=240, check=False)
