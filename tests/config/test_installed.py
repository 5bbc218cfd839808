"""Interpreters, what is installed for them, what plugins require: installed.py, requirements.py, entry.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from forkd.config.installed import environment, packages
from forkd.config.load import LoadedConfig
from forkd.config.problems import Problem
from tests.support import config_files, venvs

MANIFEST = 'name = "mine"\nversion = "1"\napi = 1\nhooks = ["mail"]\n'


def files(manifest: str, entry: str) -> dict[str, str]:
    return {
        "plugins.d__mine__plugin_toml": MANIFEST + manifest,
        "plugins.d__mine__mine_py": "",
        "plugins.d__10-mine_toml": entry if "package" in entry else 'plugin = "./mine"\n' + entry,
    }


def loaded(folder: Path, manifest: str, entry: str) -> LoadedConfig:
    return config_files.loaded(folder, "", **files(manifest, entry))


def problem(folder: Path, manifest: str, entry: str) -> Problem:
    return config_files.problem(folder, "", **files(manifest, entry))


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A virtual environment beside the entries, as the admin makes one."""
    (tmp_path / "plugins.d").mkdir()
    return venvs.make(tmp_path / "plugins.d" / "venv")


OWN = 'python = "venv/bin/python"\n'


def test_the_interpreter_is_the_plugins_own(tmp_path: Path, python: Path):
    """Relative to the entry, and not followed: the link is what makes it a virtual environment."""
    (mine,) = loaded(tmp_path, "", OWN).plugins
    assert mine.python == python
    assert mine.python.is_symlink()
    assert mine.libraries == (venvs.site(python),)


def test_without_a_need_there_are_no_libraries(tmp_path: Path):
    """What is installed for forkd is no plugin's, unless its manifest names something."""
    assert loaded(tmp_path, "", "").plugins[0].libraries == ()
    (mine,) = loaded(tmp_path, 'requires = ["msgspec"]\n', "").plugins
    assert mine.requires == ("msgspec",)
    assert any((folder / "msgspec").is_dir() for folder in mine.libraries)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("no", "there is no such file"),
        ("mine/mine.py", "this is no program that can be executed"),
        ("/bin/true", "nothing says that this is Python"),
    ],
)
def test_an_interpreter_is_there_and_can_be_executed(tmp_path: Path, name: str, rule: str):
    """Before anything is started."""
    found = problem(tmp_path, "", f'python = "{name}"\n')
    assert found.key == "python"
    assert found.rule.startswith(rule)


def test_how_to_make_one_is_said(tmp_path: Path):
    """The command."""
    found = problem(tmp_path, "", OWN)
    assert found.hint == f"python3 -m venv {tmp_path / 'plugins.d/venv'} makes it"


@pytest.mark.parametrize(
    ("requires", "said"),
    [
        ('"thing"', ""),
        ('"Thing >= 1.0, <2"', ""),
        ('"thing[more]~=1.2"', ""),
        ("\"other; python_version < '3.0'\"", ""),
        ('"thing>=2"', "requires thing>=2 (1.2 is installed)"),
        ('"other>=1", "thing"', "requires other>=1 (not installed)"),
    ],
)
def test_what_is_required_is_installed_there(tmp_path: Path, python: Path, requires: str, said: str):
    """PEP 508; the command that repairs it names the interpreter."""
    venvs.install(python, "thing", "1.2", thing_py="")
    manifest = f"requires = [{requires}]\n"
    if not said:
        assert loaded(tmp_path, manifest, OWN).plugins
        return
    found = problem(tmp_path, manifest, OWN)
    assert (Path(found.file).name, found.key) == ("10-mine.toml", "python")
    assert found.rule == f"the plugin mine {said} for {python}"
    assert found.hint.startswith(f'{python} -m pip install "')


def test_what_is_required_of_forkds_own_is_said_so(tmp_path: Path):
    """And the command for it."""
    found = problem(tmp_path, 'requires = ["no-such-thing>=1"]\n', "")
    text = "the plugin mine requires no-such-thing>=1 (not installed) for the Python that runs forkd"
    assert (found.key, found.rule) == ("plugin", text)
    assert found.hint == f'{sys.executable} -m pip install "no-such-thing>=1"'


def test_the_last_number_of_python_counts(tmp_path: Path, python: Path):
    """What pyvenv.cfg says; nothing is run to find out."""
    config = python.parent.parent / "pyvenv.cfg"
    config.write_text("home = /usr/bin\nversion_info = 3.12.4.final.0\n")
    assert environment(python).version == "3.12.4"
    assert loaded(tmp_path, 'python = ">=3.12"\n', OWN).plugins
    found = problem(tmp_path, 'python = ">=3.13"\n', OWN)
    assert found.rule == f"the plugin mine wants Python >=3.13, and {python} is 3.12.4"


def test_an_old_interpreter_is_refused_by_what_its_environment_says(tmp_path: Path, python: Path):
    """The zygote's own code needs 3.11."""
    (python.parent.parent / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.10.13\n")
    found = problem(tmp_path, "", OWN)
    assert found.rule == "this is Python 3.10.13, and a plugin's interpreter is 3.11 or newer"


def test_an_interpreter_outside_an_environment_has_its_prefixs_packages(tmp_path: Path):
    """As /usr/bin/python3.11 has; the version is in its name."""
    python = tmp_path / "usr/bin/python3.12"
    python.parent.mkdir(parents=True)
    python.write_text("")
    packages = tmp_path / "usr/lib/python3.12/site-packages"
    packages.mkdir(parents=True)
    (python.parent / "python3").symlink_to("python3.12")
    found = environment(python.parent / "python3")
    assert (found.version, found.folders) == ("3.12", (packages,))


@pytest.mark.parametrize(
    ("row", "key", "rule"),
    [
        ('python = "three"', "python", "this is what versions of Python it runs under"),
        ('requires = ["a b"]', "requires", "this is the name of a distribution and its versions"),
        (
            'requires = ["a @ https://a.example/a.whl"]',
            "requires",
            "from where it is installed is the admin's",
        ),
    ],
)
def test_a_manifest_says_it_as_packaging_tools_do(tmp_path: Path, row: str, key: str, rule: str):
    """The author's file is blamed."""
    found = problem(tmp_path, row + "\n", "")
    assert (Path(found.file).name, found.key) == ("plugin.toml", key)
    assert found.rule.startswith(rule)


# --- packages -------------------------------------------------------------------------------------------

PACKAGE = 'package = "greeter"\n' + OWN


def greeter(python: Path, name: str = "greeter", **more: str) -> None:
    given = {
        "greeter____init___py": "raise SystemExit('imported')",
        "greeter__plugin_toml": MANIFEST.replace('"mine"', '"greeter"'),
        "greeter__greeter_py": "",
    }
    venvs.install(python, name, "2.5", entry_points="greeter = greeter:plugin_init", **given | more)


def test_a_package_is_found_by_its_entry_point(tmp_path: Path, python: Path):
    """Metadata alone is read: importing it here would run a stranger's code as root."""
    greeter(python)
    (mine,) = loaded(tmp_path, "", PACKAGE).plugins
    assert (mine.name, mine.folder) == ("greeter", venvs.site(python) / "greeter")
    assert "greeter" not in sys.modules
    (found,) = packages(environment(python))
    assert (found.name, found.distribution, found.version) == ("greeter", "greeter", "2.5")


def test_an_editable_package_lies_where_it_is_worked_on(tmp_path: Path, python: Path):
    """pip install --editable."""
    project = tmp_path / "my project/src/greeter"
    project.mkdir(parents=True)
    (project / "plugin.toml").write_text(MANIFEST.replace('"mine"', '"greeter"'))
    (project / "greeter.py").write_text("")
    metadata = venvs.install(python, "greeter", "2.5", entry_points="greeter = greeter")
    url = f"file://{tmp_path}/my%20project"
    (metadata / "direct_url.json").write_text(f'{{"url": "{url}", "dir_info": {{"editable": true}}}}')
    (mine,) = loaded(tmp_path, "", PACKAGE).plugins
    assert mine.folder == project


def test_a_package_that_is_not_there_gets_help(tmp_path: Path, python: Path):
    """What there is."""
    greeter(python)
    found = problem(tmp_path, "", PACKAGE.replace("greeter", "greter"))
    assert (found.key, found.hint) == ("package", 'did you mean "greeter"?')
    assert "has an entry point of this name in forkd.plugins" in found.rule


def test_two_packages_of_one_name_are_told_apart_by_nobody(tmp_path: Path, python: Path):
    """Which is meant?"""
    greeter(python)
    greeter(python, "other")
    assert "two packages have an entry point of this name" in problem(tmp_path, "", PACKAGE).rule


def test_a_package_without_a_manifest_is_none(tmp_path: Path, python: Path):
    """It may be a package, and is no plugin."""
    venvs.install(python, "greeter", "1", entry_points="greeter = greeter", greeter____init___py="")
    assert "has no" in problem(tmp_path, "", PACKAGE).rule


@pytest.mark.parametrize(
    ("entry", "key", "rule"),
    [
        ('plugin = "./mine"\npackage = "greeter"\n', "package", "this plugin has a folder (plugin) already"),
        ("# package\nenabled = true\n", "plugin", "this key must be set, or package"),
        ('plugin = ".."\n# package\n', "plugin", "no plugin of this name comes with forkd"),
        ('package = "../mine"\n', "package", "no package installed for the Python that runs forkd"),
    ],
)
def test_an_entry_switches_on_one_plugin(tmp_path: Path, entry: str, key: str, rule: str):
    """A folder or a package."""
    found = problem(tmp_path, "", entry)
    assert (found.key, found.rule.startswith(rule)) == (key, True)


def test_members_of_a_group_have_one_interpreter(tmp_path: Path, python: Path):
    """One zygote has one."""
    both = files("", OWN + 'group = "g"\n') | {
        "plugins.d__b__plugin_toml": MANIFEST.replace('"mine"', '"b"'),
        "plugins.d__b__b_py": "",
        "plugins.d__20-b_toml": 'plugin = "./b"\ngroup = "g"\n',
    }
    found = config_files.problem(tmp_path, "", **both)
    assert (found.key, "cannot differ in this" in found.rule) == ("python", True)
