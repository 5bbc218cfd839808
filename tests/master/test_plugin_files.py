"""Whose files are believed, and which were they: forkd/master/plugin_{files,loaded}.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forkd.config.schema import PluginConfig, PluginLimits, Powers
from forkd.master import plugin_files, plugin_loaded
from forkd.master.plugin_files import Finding, Judge, digest, examine_entries, examine_folder
from forkd.master.plugin_loaded import Loaded
from tests.support import config_files, venvs
from tests.support.sandboxes import NOBODY
from tests.support.waiting import wait_for

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plugin as git or tar leave it."""
    made = tmp_path / "mine"
    (made / "lists").mkdir(parents=True)
    for name in ("mine.py", "plugin.toml", "lists/a.txt"):
        (made / name).write_text(name)
    return made


def problems(folder: Path, uid: int | None = None) -> list[str]:
    return [found.text for found in examine_folder(folder, Judge.of(uid)) if not found.note]


def notes(folder: Path) -> list[str]:
    return [found.text for found in examine_folder(folder, Judge.of(None)) if found.note]


def plugin(folder: Path, **more: object) -> PluginConfig:
    return PluginConfig(
        name="mine", version="1", folder=folder, module="mine.py", order=1, hooks=("mail",), settings={},
        powers=Powers(), reads=(), files=(), limits=PluginLimits(), **more,
    )  # fmt: skip


def test_an_ordinary_checkout_is_fine(folder: Path):
    """Ours, 755 and 644."""
    assert (problems(folder), notes(folder)) == ([], [])


@pytest.mark.parametrize("name", [".", "mine.py", "plugin.toml", "lists", "lists/a.txt"])
def test_what_everybody_may_write_is_refused_with_what_to_do(folder: Path, name: str):
    """One line, whichever file or folder it is."""
    (folder / name).chmod(0o777)
    assert problems(folder) == [f"everybody may write {folder / name}: chmod -R go-w {folder}"]


def test_a_folder_above_in_which_everybody_may_rename_is_refused(folder: Path):
    """Unless it is sticky, as /tmp is."""
    folder.parent.chmod(0o777)
    assert problems(folder) == [
        f"everybody may rename what lies in {folder.parent}: chmod o-w {folder.parent}"
    ]
    folder.parent.chmod(0o1777)
    assert problems(folder) == []


def test_above_forkds_own_code_it_is_a_note(tmp_path: Path):
    """A checkout in a folder of everybody's: who renames there replaces forkd itself."""
    found = Judge.of(None).above(tmp_path)
    assert found is None
    tmp_path.chmod(0o777)
    found = Judge.of(None).above(tmp_path)
    assert found is not None
    assert not found.note
    program = f"from pathlib import Path; from forkd.master.plugin_files import Judge; {NOTED}"
    shutil.copytree(Path(plugin_files.__file__).parent.parent, tmp_path / "forkd")
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n"


NOTED = "import sys; print(Judge.of(None).above(Path(sys.argv[1])).note)"


def test_a_private_group_is_noted(folder: Path):
    """umask 002 with a group per user: what Debian gives every new user."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o020)
    assert problems(folder) == []
    assert len(notes(folder)) == 1
    assert "which is its owner's own (umask 002)" in notes(folder)[0]


@as_root
@pytest.mark.parametrize("gid", [4, 4711])
def test_a_group_of_several_is_refused(folder: Path, gid: int):
    """Each of its members could change what is loaded."""
    os.chown(folder / "mine.py", 0, gid)
    (folder / "mine.py").chmod(0o664)
    (found,) = problems(folder)
    assert found.startswith("the group ") and f"may write {folder / 'mine.py'}: chmod -R go-w" in found


@as_root
def test_a_number_without_a_name_is_a_private_group_of_its_number(folder: Path):
    """As in containers."""
    os.chown(folder / "mine.py", 4711, 4711)
    (folder / "mine.py").chmod(0o664)
    found = Judge(frozenset({4711})).entry(folder / "mine.py", root=folder)
    assert found is not None
    assert found.note


@as_root
def test_files_of_others_are_refused(folder: Path):
    """Root runs what root, or the owner of forkd's own code, wrote."""
    os.chown(folder / "mine.py", NOBODY, 0)
    assert problems(folder) == [f"{folder / 'mine.py'} belongs to nobody: chown -R root {folder}"]


@as_root
@pytest.mark.parametrize("name", [".", "mine.py", "lists", ".."])
def test_what_the_plugins_own_uid_owns_is_refused(folder: Path, name: str):
    """Attack 52: it would write what is loaded the next time."""
    os.chown(folder / name, 64001, -1)
    (found,) = problems(folder, 64001)
    assert "belongs to uid 64001, as whom the plugin runs" in found


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path):
    """Attack 53: what is behind it is not looked at."""
    (tmp_path / "elsewhere.py").write_text("")
    (folder / "helper.py").symlink_to("mine.py")
    assert problems(folder) == []
    (folder / "out.py").symlink_to("../elsewhere.py")
    text = (
        f"{folder / 'out.py'} is a link that leads out of the plugin's folder, to {tmp_path / 'elsewhere.py'}"
    )
    assert problems(folder) == [text]


def test_a_plugins_folder_may_be_a_link_itself(folder: Path, tmp_path: Path):
    """The admin's: current -> mine-1.2."""
    (tmp_path / "current").symlink_to("mine")
    assert problems(tmp_path / "current") == []
    assert digest(tmp_path / "current") == digest(folder)


def test_what_is_no_file_is_refused(folder: Path):
    """Reading a pipe would wait for ever."""
    os.mkfifo(folder / "pipe")
    assert problems(folder) == [f"{folder / 'pipe'} is neither a file nor a folder: remove it"]


def test_a_folder_that_is_gone_is_said(tmp_path: Path):
    """Between configuration and start."""
    assert problems(tmp_path / "no") == [f"{tmp_path / 'no'}: no such file or directory"]


def test_a_virtual_environment_is_looked_at_too(folder: Path):
    """Its links lead to the interpreter; its packages are as much the plugin as its module."""
    python = venvs.make(folder / "venv")
    venvs.install(python, "thing", "1", thing_py="")
    mine = plugin(folder, python=python, libraries=(venvs.site(python),))
    assert plugin_files.examine(mine, None) == []
    (venvs.site(python) / "thing.py").chmod(0o666)
    texts = {found.text for found in plugin_files.examine(mine, None)}
    assert any(f"everybody may write {venvs.site(python) / 'thing.py'}" in text for text in texts)


def test_an_entry_that_others_write_is_noted(tmp_path: Path):
    """Who writes it grants."""
    manifest = 'name = "mine"\nversion = "1"\napi = 1\nhooks = ["mail"]\n'
    files = {"plugins.d__mine__plugin_toml": manifest, "plugins.d__mine__mine_py": ""}
    loaded = config_files.loaded(tmp_path, "", **files, **{"plugins.d__10-mine_toml": 'plugin = "./mine"\n'})
    entry = tmp_path / "plugins.d/10-mine.toml"
    assert examine_entries(loaded.plugins[0]) == []
    entry.chmod(0o666)
    text = f"everybody may write {entry}: chmod go-w {entry}; who can write it can grant"
    assert examine_entries(loaded.plugins[0]) == [text]


def test_problems_come_before_notes(folder: Path):
    """The first one is told."""
    (folder / "lists").chmod(0o775)
    (folder / "mine.py").chmod(0o666)
    assert [found.note for found in plugin_files.examine(plugin(folder), None)] == [False, True]
    assert Finding("x").note is False


# --- the hash -------------------------------------------------------------------------------------------

BY_HAND = (
    "find . -type f -not -path '*/.*' -not -path '*/__pycache__/*' -printf '%P\\0' |"
    " LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"
)


def test_the_hash_can_be_checked_by_hand(folder: Path):
    """With the command of the module's docstring, whatever the names are."""
    (folder / "a b\\c\nd").write_text("x")
    (folder / "lists" / "z.bin").write_bytes(bytes(range(256)) * 5000)
    (folder / ".hidden").write_text("x")
    done = subprocess.run(["sh", "-c", BY_HAND], cwd=folder, capture_output=True, text=True, check=True)
    assert digest(folder) == done.stdout.split()[0]
    assert plugin_files.__doc__ is not None
    assert "".join(BY_HAND.split()) in "".join(plugin_files.__doc__.split())


@pytest.mark.parametrize("change", ["content", "name", "new", "gone"])
def test_any_change_of_a_file_changes_it(folder: Path, change: str):
    """Content, name, number."""
    before = digest(folder)
    file = folder / "lists/a.txt"
    match change:
        case "content":
            file.write_text("other")
        case "name":
            file.rename(folder / "lists/b.txt")
        case "new":
            (folder / "new.py").write_text("")
        case "gone":
            file.unlink()
    assert digest(folder) != before


def test_what_running_it_leaves_does_not_change_it(folder: Path):
    """Compiled files, caches of tools, a virtual environment's packages."""
    before = digest(folder)
    for name in ("__pycache__/mine.cpython-311.pyc", ".pytest_cache/x", "lists/__pycache__/y.pyc"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    venvs.make(folder / "venv")
    assert digest(folder) == before


@pytest.mark.parametrize("where", [".", "lists"])
def test_a_lone_pyvenv_cfg_hides_nothing(folder: Path, where: str):
    """Neither code from the hash nor links from the look: only what `python -m venv` made is left out."""
    (folder / where / "pyvenv.cfg").touch()
    (folder / where / "code.py").write_text("good")
    before = digest(folder)
    (folder / where / "code.py").write_text("evil")
    assert digest(folder) != before
    (folder / where / "out.py").symlink_to("/etc/passwd")
    assert len(problems(folder)) == 1


def test_the_plugins_own_folder_is_no_environment(tmp_path: Path):
    """Even where it looks like one."""
    venvs.make(tmp_path / "mine")
    (tmp_path / "mine/mine.py").write_text("good")
    before = digest(tmp_path / "mine")
    (tmp_path / "mine/mine.py").write_text("evil")
    assert digest(tmp_path / "mine") != before


def test_changes_are_named(folder: Path):
    """The admin hears which folder, and when it takes effect."""
    loaded = Loaded.now(plugin(folder))
    assert loaded.changed() == ""
    (folder / "mine.py").write_text("half writ")
    assert (
        loaded.changed() == f"{folder} changed on disk since forkd started; takes effect at the next restart"
    )
    (folder / "mine.py").unlink()
    assert "changed on disk" in loaded.changed()


def test_a_program_may_change(folder: Path):
    """Each message starts what lies there: it is told with its new hash; a program that is gone is said."""
    program = folder / "mine.py"
    loaded = Loaded.now(plugin(folder, kind="program", code=(program,)))
    before = loaded.shown()
    program.write_text("edited")
    assert loaded.changed() == ""
    assert loaded.shown() == {"sha256 mine": plugin_files.digest_of([program])} != before
    program.unlink()
    assert loaded.changed() == f"{program}: No such file or directory"


def octets_read() -> int:
    """By this process, whatever it read."""
    rows = Path("/proc/self/io").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("rchar:"))


def test_what_nobody_touched_is_not_read_again(folder: Path):
    """A plugin may have a gigabyte of tables, and its zygote starts while master does nothing else."""
    large = 4_000_000
    (folder / "lists/large.bin").write_bytes(bytes(large))
    wait_for(
        lambda: time.time_ns() - (folder / "lists/large.bin").stat().st_ctime_ns > 2 * plugin_loaded._TICK_NS
    )
    loaded = Loaded.now(plugin(folder))
    before = octets_read()
    assert loaded.changed() == ""
    assert octets_read() - before < large
    (folder / "lists/large.bin").touch()
    assert loaded.changed() == ""
    assert octets_read() - before >= large


@pytest.mark.parametrize("kept", ["size and time of writing", "file was just new"])
def test_a_change_that_hides_is_found(folder: Path, kept: str):
    """The time of writing can be set; that of the last change cannot, but goes in steps."""
    file = folder / "lists/a.txt"
    if kept != "file was just new":
        wait_for(lambda: time.time_ns() - file.stat().st_ctime_ns > 2 * plugin_loaded._TICK_NS)
    loaded = Loaded.now(plugin(folder))
    was = file.stat()
    file.write_text("x" * was.st_size)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert "changed on disk" in loaded.changed()


def test_another_version_of_a_library_is_a_change(folder: Path):
    """As pip writes it down."""
    python = venvs.make(folder / "venv")
    old = venvs.install(python, "thing", "1", thing_py="")
    loaded = Loaded.now(plugin(folder, python=python, libraries=(venvs.site(python),)))
    assert loaded.changed() == ""
    old.rename(old.with_name("thing-2.dist-info"))
    assert loaded.changed().startswith("what is installed for it changed on disk")
