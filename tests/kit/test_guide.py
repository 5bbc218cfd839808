"""plugins/README.md: what stands there works."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from forkd.kit import samples, trial
from forkd.kit.configured import configured

ROOT = Path(__file__).parent.parent.parent
GUIDE = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
PLUGINS = ("manners", "tagger", "listed")


def files(prefix: str) -> dict[str, str]:
    """Blocks that begin with `# PATH`, by path."""
    found = {}
    for _, text in BLOCKS:
        named = re.match(r"# ([\w./-]+)[^\n]*\n", text)
        if named and named.group(1).startswith(prefix):
            found[named.group(1)] = text[named.end() :]
    return found


def write(place: Path, name: str) -> Path:
    """A plugin of the guide, its manifest with the lines that all begin with."""
    for path, text in files(f"{name}/").items():
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    code = (place / name / f"{name}.py").read_text()
    hooks = re.findall(r"(\w+)=\1", code.rpartition("return Plugin(")[2])
    manifest = place / name / "plugin.toml"
    listed = ", ".join(f'"{hook}"' for hook in hooks)
    head = f'name = "{name}"\nversion = "1.0.0"\napi = 1\nkind = "python"\nhooks = [{listed}]\n'
    manifest.write_text(head + (manifest.read_text() if manifest.exists() else ""))
    return place / name


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"},
    )


@pytest.mark.parametrize("name", PLUGINS)
def test_examples_pass_their_own_tests(place: Path, name: str):
    """As they stand in the guide."""
    folder = write(place, name)
    done = run(place, "pytest", "-q", "-p", "no:cacheprovider", str(folder))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", PLUGINS)
def test_examples_run_in_a_real_sandbox(place: Path, name: str):
    """Every hook answers, and nothing is refused."""
    with configured(write(place, name)) as given:
        found = asyncio.run(trial.test(given, samples.builtin()[:3]))
    assert found.failures == 0, found.sessions
    noted = [*found.loading, *(one for session in found.sessions for one in session.refused)]
    assert [one.refusal.text for one in noted if not one.harmless] == []


def test_first_steps_work_as_written(place: Path):
    """The commands of "First plugin in five minutes", up to the one that serves."""
    for path in ("forkd.toml", "plugins.d/50-hello.toml"):
        file = place / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(files(path)[path])
    section = GUIDE.partition("## First plugin in five minutes")[2].partition("\n## ")[0]
    commands = [shlex.split(line[2:]) for line in section.splitlines() if line.startswith("$ ")]
    assert ["forkd", "run", "--config", "forkd.toml"] in commands
    for command in commands:
        if command[0] == "swaks" or command[1] == "run":
            continue
        done = run(place, *command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def test_the_sessions_of_the_guide_can_be_read(place: Path):
    """The file for `plugin test --session`."""
    (place / "sessions.toml").write_text(files("sessions.toml")["sessions.toml"])
    (sample,) = samples.of_file(place / "sessions.toml")
    assert (sample.name, sample.client_ip, sample.mail[0].sender) == ("a stranger", "198.51.100.7", "")
    assert sample.mail[0].octets.endswith(b"A few words.\r\n")


def test_every_block_of_toml_is_toml():
    """With its first line as a comment."""
    for kind, text in BLOCKS:
        if kind == "toml":
            tomllib.loads(text)


def test_the_guide_is_short():
    """One sitting."""
    assert len(GUIDE.splitlines()) < 350
