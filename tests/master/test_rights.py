"""forkd/master/rights.py: the names in the roles' table, as paths and ports of a configuration."""

from __future__ import annotations

from pathlib import Path

from forkd.config.schema import (
    Capabilities,
    Config,
    Dns,
    Maildir,
    PluginConfig,
    PluginLimits,
    Powers,
    QmailQueue,
    Server,
)
from forkd.master import rights
from forkd.master.rights import Setting
from forkd.master.roles import ROLES, May
from forkd.queue.spool import spool_root
from forkd.sandbox.role_walls import READ, TIDY, TREE, WRITE

CONFINED = [role for role in ROLES if role.may is not None]


def test_a_role_is_given_what_its_row_names_and_nothing_else(tmp_path: Path):
    """Data, not code: no row, no path."""
    setting = Setting(config=Config(server=Server(data_dir=tmp_path)), slot=3)
    base = {str(path) for path, _ in rights.code()}
    given = {
        role.name: {
            (path, right) for path, right in rights.walls(role.may, setting).paths if path not in base
        }
        for role in CONFINED
        if role.may is not None
    }
    spool = spool_root(tmp_path)
    assert given["anvil"] == set()
    assert given["qmgr"] >= {(str(spool), TREE)}
    assert {path for path, right in given["worker"] if right != READ} == {
        str(spool / where / "w3") for where in ("tmp", "new", "free")
    }
    assert {each for each in given["admin"] if each[1] != READ} == {
        (str(tmp_path / "run"), TIDY),
        (str(tmp_path / "trace"), WRITE),
    }


def mailboxes(tmp_path: Path, path: str, catch_all: str = "") -> set[str]:
    local = Maildir(path=path, catch_all=catch_all)
    config = Config(server=Server(data_dir=tmp_path / "data"), transport={"local": local})
    given = rights.walls(May(reach=frozenset({"mailboxes"})), Setting(config=config)).paths
    return {path for path, right in given if right == TREE}


def test_mailboxes_wherever_the_configuration_says(tmp_path: Path):
    """The folder above all of them; the Maildir itself; the nearest that is there, where it will be made."""
    home = tmp_path / "home"
    home.mkdir()
    assert mailboxes(tmp_path, f"{home}/{{user}}/Maildir") == {str(home)}
    assert mailboxes(tmp_path, f"{home}/mail-{{user}}") == {str(home)}
    assert mailboxes(tmp_path, f"{tmp_path}/later/{{user}}") == {str(tmp_path)}
    (home / "all").mkdir()
    assert mailboxes(tmp_path, f"{home}/all") == {str(home / "all")}
    assert mailboxes(tmp_path, f"{home}/{{user}}/.{{detail}}") == {str(home)}
    (tmp_path / "rest").mkdir()
    caught = mailboxes(tmp_path, f"{home}/{{user}}", f"{tmp_path}/rest/{{domain}}")
    assert caught == {str(home), str(tmp_path / "rest")}


def test_mailboxes_behind_links_are_reached(tmp_path: Path):
    """Domains on several disks: links in the folder of all mailboxes."""
    disk, home = tmp_path / "disk", tmp_path / "home"
    for each in (disk / "example.org", home):
        each.mkdir(parents=True)
    (home / "example.org").symlink_to(disk / "example.org")
    (home / "broken").symlink_to(disk / "nowhere")
    path = f"{home}/{{domain}}/{{user}}"
    assert mailboxes(tmp_path, path) == {str(home), str((disk / "example.org").resolve())}


def test_a_folder_of_mailboxes_that_is_nowhere_is_said(tmp_path: Path):
    """Then qmgr's walls are as wide as its user's rights, and the admin hears of it."""
    config = Config(server=Server(data_dir=tmp_path), transport={"x": Maildir(path="/no-such/{user}")})
    (note,) = rights.notes(config)
    assert "[transport.x]" in note and "/no-such is not there" in note


def test_the_brokers_ports_are_those_of_name_servers_and_granted_targets():
    """Landlock bounds TCP by port: 53, and what the admin wrote."""
    plugin = PluginConfig(
        name="p", version="1", folder=Path("/"), module="p.py", order=1, hooks=("mail",), settings={},
        powers=Powers(), reads=(), files=(), limits=PluginLimits(),
        capabilities=Capabilities(connect={"a": "127.0.0.1:3310", "b": "unix:/run/x:1", "c": "[::1]:99"}),
    )  # fmt: skip
    setting = Setting(config=Config(dns=Dns(servers=("127.0.0.1:5353", "::1"))), plugins=(plugin,))
    assert rights.walls(May(network="connect"), setting).ports == (53, 99, 3310, 5353)


def test_that_the_launcher_has_no_walls_is_said_wherever_it_runs(tmp_path: Path):
    """The row `roles` names those that have some; who is not in it, an admin should not have to find out."""
    program = QmailQueue(argv=("/opt/bin/qmail-queue",))
    for config in (Config(), Config(transport={"local": program, "other": program})):
        notes = rights.launcher_notes(config)
        assert len(notes) == bool(config.transport)
        for note in notes:
            assert note.startswith("process launcher has no walls")
            assert note.count("/opt/bin/qmail-queue") == 1
