"""Plugins that share a sandbox: forkd/config/groups.py, through load()."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkd.config.load import LoadedConfig
from forkd.config.problems import Problem
from forkd.config.schema import PluginConfig, Powers
from forkd.config.show import as_data
from tests.support import config_files

ONE = 'hooks = ["mail", "message"]\n[wants.powers]\naccept = "r"\n'
TWO = (
    'hooks = ["message", "connect"]\n[settings.n]\ntype = "integer"\n[wants.powers]\n'
    'edit_headers = { names = ["X-B"], reason = "r" }\n[wants.reads]\nheaders = "r"\n'
)
IN = 'group = "checks"\n'
GRANTS = (
    "[grants]\naccept = true\n",
    '[settings]\nn = 7\n[grants]\nedit_headers = ["X-B"]\nreads = ["headers"]\n',
)


def files(one: str, two: str, *, group: str = IN, order: tuple[int, int] = (20, 10)) -> dict[str, str]:
    """The plugins a and b; `one` and `two` stand at the top of their entries."""
    result = {}
    for name, manifest, entry, grants, at in (
        ("a", ONE, one, GRANTS[0], order[0]),
        ("b", TWO, two, GRANTS[1], order[1]),
    ):
        result[f"plugins.d__{name}__plugin_toml"] = f'name = "{name}"\nversion = "{at}"\napi = 1\n' + manifest
        result[f"plugins.d__{name}__{name}_py"] = ""
        result[f"plugins.d__{at}-{name}_toml"] = f'plugin = "./{name}"\n{group}{entry}\n{grants}'
    return result


def loaded(folder: Path, one: str = "", two: str = "", **more: str) -> LoadedConfig:
    return config_files.loaded(folder, "[listener.in]\n", **files(one, two), **more)


def group(folder: Path, one: str = "", two: str = "") -> PluginConfig:
    (only,) = loaded(folder, one, two).plugins
    return only


def problem(folder: Path, one: str = "", two: str = "") -> Problem:
    return config_files.problem(folder, "[listener.in]\n", **files(one, two))


def test_a_group_is_one_plugin_with_members_in_order(tmp_path: Path):
    """plugins.md: one zygote, one fork, one round trip per hook for all of them, in order."""
    checks = group(tmp_path)
    assert (checks.name, checks.group, checks.order) == ("checks", "checks", 10)
    assert [(one.name, one.version, one.module) for one in checks.members] == [
        ("b", "10", "b.py"),
        ("a", "20", "a.py"),
    ]
    assert [one.folder.name for one in checks.members] == ["b", "a"]
    assert [one.settings for one in checks.members] == [{"n": 7}, {}]
    assert [one.hooks for one in checks.members] == [("connect", "message"), ("mail", "message")]


def test_what_one_member_may_do_the_group_may_do(tmp_path: Path):
    """plugins.md: their grants are then the group's; nothing but the kernel separates plugins."""
    checks = group(tmp_path)
    assert checks.hooks == ("connect", "mail", "message")
    assert checks.powers == Powers(accept=True, edit_headers=("X-B",))
    assert checks.reads == ("headers",)


def test_limits_of_a_group_are_the_largest(tmp_path: Path):
    """One call asks all of them: each has what it would have alone."""
    limits = group(
        tmp_path,
        '[limits]\ncpu = "5s"\nmemory = "64MiB"\nspare = 0',
        '[limits]\ncpu = "1s"\nmemory = "128MiB"\ntimeout = "7s"',
    ).limits
    assert (limits.cpu, limits.memory, limits.timeout, limits.spare) == (5, 128 << 20, 7, 2)


@pytest.mark.parametrize(("one", "two", "expected"), [(1, 0, 0), (0, 10**6, 10**6), (3, 5, 5), (0, 0, 0)])
def test_sandboxes_of_a_group(tmp_path: Path, one: int, two: int, expected: int):
    """0 stands for a number: 64 per CPU."""
    limits = group(tmp_path, f"[limits]\nsandboxes = {one}", f"[limits]\nsandboxes = {two}").limits
    assert limits.sandboxes == expected


@pytest.mark.parametrize(
    ("row", "table", "key"),
    [
        ('on_failure = "defer"', "", "on_failure"),
        ("trusted = true", "", "trusted"),
        ('[scope]\nlisteners = ["in"]', "[scope]", "listeners"),
        ('[scope]\nnetworks = ["10.0.0.0/8"]', "[scope]", "networks"),
        ('[scope]\ndomains = ["example.org"]', "[scope]", "domains"),
        ('[limits]\nfresh = "call"', "[limits]", "fresh"),
        ("[limits]\nreuse = 5", "[limits]", "reuse"),
    ],
)
def test_members_of_a_group_have_one_fate(tmp_path: Path, row: str, table: str, key: str):
    """The second file is blamed and names the first; written in both, it holds."""
    found = problem(tmp_path, row, "")
    assert (Path(found.file).name, found.table, found.key) == ("20-a.toml", table, key)
    assert "10-b.toml" in found.rule
    assert "frozenset" not in str(found), "values are shown as TOML writes them"
    assert group(tmp_path, row, row)


def test_the_order_of_a_list_is_no_difference(tmp_path: Path):
    """Two files, one meaning."""
    one = '[scope]\nnetworks = ["10.0.0.0/8", "192.0.2.0/24"]'
    assert group(tmp_path, one, '[scope]\nnetworks = ["192.0.2.0/24", "10.0.0.0/8"]')


def test_a_group_of_one_is_fine(tmp_path: Path):
    """The others may be switched off for a while."""
    checks = group(tmp_path, "enabled = false")
    assert (checks.name, [one.name for one in checks.members]) == ("checks", ["b"])


def test_a_plugin_without_a_group_is_its_own_only_member(tmp_path: Path):
    """plugins.md: default, each plugin its own group."""
    plugins = config_files.loaded(tmp_path, "", **files("", "", group="")).plugins
    assert [(one.name, one.group, [m.name for m in one.members]) for one in plugins] == [
        ("b", "", ["b"]),
        ("a", "", ["a"]),
    ]


@pytest.mark.parametrize("name", ["Checks", "a b", "1", "@x", "x" * 33])
def test_a_groups_name_is_a_name(tmp_path: Path, name: str):
    """It becomes part of socket names, log fields and process titles, as a plugin's does."""
    found = config_files.problems(tmp_path, "", **files("", "", group=f'group = "{name}"\n'))
    assert {(one.key, "a group's name is" in one.rule) for one in found} == {("group", True)}


STRANGER = {
    "plugins.d__c__plugin_toml": 'name = "checks"\nversion = "1"\napi = 1\nhooks = ["mail"]\n',
    "plugins.d__c__checks_py": "",
}


def test_a_group_has_not_the_name_of_a_plugin_beside_it(tmp_path: Path):
    """Both would have the same socket."""
    found = config_files.problem(
        tmp_path, "", **files("", ""), **STRANGER, **{"plugins.d__30-c_toml": 'plugin = "./c"\n'}
    )
    assert (found.key, "which is not of the group" in found.rule) == ("group", True)


def test_a_plugin_between_two_members_is_said(tmp_path: Path):
    """The group is asked as a whole, so the order the files show is not the order in force."""
    stranger = {name.replace("checks", "c"): text.replace("checks", "c") for name, text in STRANGER.items()}
    result = loaded(tmp_path, **stranger, **{"plugins.d__15-c_toml": 'plugin = "./c"\n'})
    assert [plugin.name for plugin in result.plugins] == ["checks", "c"]
    assert any("a (order 20) comes before c (order 15)" in note for note in result.notes)
    (tmp_path / "plugins.d/15-c.toml").rename(tmp_path / "plugins.d/30-c.toml")
    assert not any("comes before" in note for note in loaded(tmp_path).notes)


def test_one_plugin_is_in_one_group_once(tmp_path: Path):
    """Names of plugins stay unique, in groups too."""
    again = {"plugins.d__40-a_toml": 'plugin = "./a"\ngroup = "other"\n' + GRANTS[0]}
    found = config_files.problem(tmp_path, "", **files("", ""), **again)
    assert "has switched on a plugin of this name already" in found.rule


def test_a_group_is_shown_with_its_members(tmp_path: Path):
    """plugins.md: the union is shown, and who is in it."""
    shown = as_data(loaded(tmp_path))["plugin"]["checks"]
    assert shown["powers"]["edit_headers"] == ["X-B"]
    assert list(shown["member"]) == ["b", "a"]
    assert shown["member"]["b"]["settings"] == {"n": 7}
    assert not {"version", "folder", "module", "settings"} & set(shown)
