"""forkd/sandbox/outside.py: what a zygote shows of itself is looked at, whatever the plugin made of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from forkd.sandbox import launch
from forkd.sandbox.confine import LAYERS
from tests.support.sandboxes import FURTHER_MODES, ROOT, as_mode, stage

MAPPED = """
KEPT = os.open(os.path.join(os.path.dirname(__file__).encode(), NAME), FLAGS)
assert libc.mmap(None, ctypes.c_size_t(4096), PROTECTION, SHARING, KEPT, ctypes.c_long(0)) % 4096 == 0
def attack(_): pass
"""
NO_WALLS_FOR_FILES = tuple(
    layer for layer in LAYERS if layer not in ("seccomp", "files", "namespaces", "mount_root")
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do that")


def put(name: bytes) -> Callable[[Path], None]:
    """Make a file of that name in the plugin's folder, for everybody to write."""

    def prepare(folder: Path) -> None:
        place = folder / os.fsdecode(name)
        place.write_bytes(b"x" * 4096)
        place.chmod(0o666)

    return prepare


@needs_root
@pytest.mark.parametrize(
    "name", [b"\xff.dat", b"a\rb\x0cc\xc2\x85", b" rw-s"], ids=["octet", "lines", "flags"]
)
def test_a_mapped_file_may_have_any_name(name: bytes):
    """What /proc shows are octets, and a plugin chooses some of them: nothing is wrong with this one."""
    with stage(ROOT) as st:
        head = f"NAME, FLAGS, PROTECTION, SHARING = {name!r}, os.O_RDONLY, 1, 2\n"
        st.start(head + MAPPED, prepare=put(name))
        assert launch.look(st.zygote, layers=LAYERS) == launch.Verification((), ("Landlock",))


@needs_root
def test_a_shared_mapping_is_told_in_plain_text():
    """A line of the log is UTF-8, whatever the file that the plugin shares is called."""
    with stage(ROOT) as st:
        head = "NAME, FLAGS, PROTECTION, SHARING = b'\\xff.dat', os.O_RDWR, 3, 1\n"
        st.start(head + MAPPED, prepare=put(b"\xff.dat"), layers=NO_WALLS_FOR_FILES)
        problems = launch.look(st.zygote, layers=NO_WALLS_FOR_FILES).problems
        assert [line for line in problems if line.startswith("shared mapping") and "\\xff.dat" in line]
        assert "; ".join(problems).encode()


@pytest.mark.parametrize("mode", FURTHER_MODES)
def test_what_it_started_while_it_was_loaded_is_seen(mode: str):
    """Such a process keeps the memory that loading may take, for good; the dead do not."""
    code = """
for seconds in (0, 600, 600):
    if os.fork() == 0:
        time.sleep(seconds)
        os._exit(0)
os.wait()
def attack(_): pass
"""

    def body() -> None:
        with stage(mode) as st:
            st.start(code, begin=False)
            assert "it has started 2 processes" in launch.look(st.zygote, layers=LAYERS).problems

    as_mode(mode, body)
