"""Files in, values out: forkd/config/load.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkd.config.load import data_dir_of, load, users_file_of
from forkd.config.problems import ConfigError
from forkd.config.schema import Domain, Listener, Maildir
from tests.support.config_files import loaded, problem, problems, write


def test_without_a_file_the_defaults_serve_a_newcomer(tmp_path: Path):
    """operations.md: 127.0.0.1:2525, ./var, localhost and test.local, Maildirs, a sample plugin on."""
    default = load(None, cwd=tmp_path)
    assert default.file is None
    assert default.config.listener == {"default": Listener(address="127.0.0.1:2525")}
    assert default.config.domain == {"localhost": Domain(), "test.local": Domain()}
    assert default.config.server.data_dir == tmp_path / "var"
    assert default.config.transport == {"local": Maildir()}
    assert [plugin.name for plugin in default.plugins] == ["block_senders", "mark"]


def test_loading_writes_nothing(tmp_path: Path):
    """`config check` can be run anywhere, by anybody."""
    load(None, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_must_name_its_domains(tmp_path: Path):
    """test.local on a server in the world would be mail for nobody."""
    assert list(loaded(tmp_path, '[domain."example.org"]').config.domain) == ["example.org"]


def test_transport_local_is_there_unless_set(tmp_path: Path):
    """`local` is a maildir unless set; further ones stand beside it."""
    config = loaded(tmp_path, '[transport.x]\nkind = "discard"\n').config
    assert set(config.transport) == {"local", "x"}


def test_a_host_name_is_filled_in(tmp_path: Path):
    """Everybody who reads the configuration greets with the same name."""
    assert loaded(tmp_path, "").config.server.hostname


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ("command = 5m", 'a text needs quotes: write "5m"'),
        ("hostname = mail.example.org", 'a text needs quotes: write "mail.example.org"'),
        ("command: 5", "a key and its value are joined by =: write command = ..."),
        ('command = "5m', ""),
    ],
)
def test_a_text_that_is_no_toml_is_named_with_its_line(tmp_path: Path, row: str, hint: str):
    """The commonest slips against TOML's syntax are understood."""
    found = problem(tmp_path, f"[timeouts]\n{row}\n")
    assert (found.line, found.hint) == (2, hint)
    assert found.rule.startswith("this is not TOML: ")


def test_a_key_given_twice_is_named_with_its_line(tmp_path: Path):
    """The later of two would win silently in other formats."""
    assert problem(tmp_path, "[limits]\nerrors = 1\nerrors = 2\n").line in (3, 4)


def test_text_that_is_not_utf8_is_named_with_its_line(tmp_path: Path):
    """TOML is UTF-8; an editor's Latin-1 is not."""
    (tmp_path / "forkd.toml").write_bytes(b"[server]\nhostname = '\xfcber'\n")
    with pytest.raises(ConfigError, match=r"forkd\.toml:2: this is not UTF-8"):
        load(tmp_path / "forkd.toml")


def test_a_missing_file_is_a_problem_with_a_hint(tmp_path: Path):
    """A typing error in the name, while forkd.toml lies beside it."""
    write(tmp_path, forkd_toml="")
    with pytest.raises(ConfigError, match=r"no such file or directory \(did you mean .*forkd\.toml\?\)"):
        load(tmp_path / "fork.toml")


def test_problems_of_all_files_come_together(tmp_path: Path):
    """forkd.toml and each entry, in one error."""
    found = problems(
        tmp_path,
        "[server]\nworkerz = 1\n",
        plugins_d__x="",
        **{"plugins.d__10-a_toml": 'plugin = "nope"\n', "plugins.d__20-b_toml": "plugin = 5\n"},
    )
    assert [Path(one.file).name for one in found] == ["forkd.toml", "10-a.toml", "20-b.toml"]


def test_entries_are_found_even_when_the_main_file_is_no_toml(tmp_path: Path):
    """One broken file does not hide what is wrong with another."""
    found = problems(tmp_path, "[server\n", **{"plugins.d__10-a_toml": 'plugin = "nope"\n'})
    assert [Path(one.file).name for one in found] == ["forkd.toml", "10-a.toml"]


def test_a_plugins_folder_that_is_named_must_exist(tmp_path: Path):
    """No plugins by a typing error would be a silent skip of all of them."""
    assert problem(tmp_path, '[plugins]\ndir = "plugin.d"\n').rule == "there is no such folder"


def test_without_a_plugins_folder_there_are_none_and_it_is_said(tmp_path: Path):
    """A note, since it may be what the admin wants."""
    result = loaded(tmp_path, "")
    assert not result.plugins
    assert any("no plugins" in note for note in result.notes)


def test_a_pasted_plugin_table_is_sent_where_it_belongs(tmp_path: Path):
    """`config show --effective` prints [plugin.NAME]; in forkd.toml it is refused with the way to do it."""
    assert "plugins.d/NN-name.toml" in problem(tmp_path, "[plugin.mark]\norder = 1\n").hint


def test_the_data_folder_of_a_broken_configuration_is_still_known(tmp_path: Path):
    """`forkd status` must find a daemon whose file was spoilt after it was started."""
    path = write(tmp_path, forkd_toml='[server]\ndata_dir = "d"\ncolour = 1\n')
    assert data_dir_of(path) == tmp_path / "d"
    assert data_dir_of(None, cwd=tmp_path) == tmp_path / "var"


def test_the_users_file_is_known_before_it_is_there(tmp_path: Path):
    """`forkd user add` makes the file that load() insists on."""
    path = write(tmp_path, forkd_toml='[auth]\nbackend = "users"\nusers = "u/list"\n')
    assert users_file_of(path) == tmp_path / "u/list"
    assert users_file_of(write(tmp_path, forkd_toml="")) == tmp_path / "users"
    assert users_file_of(None, cwd=tmp_path) == tmp_path / "users"
    assert load(None, cwd=tmp_path).config.auth.users == tmp_path / "users"


def test_paths_in_messages_are_what_the_admin_would_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Relative when the file lies below the current folder."""
    monkeypatch.chdir(tmp_path)
    assert problem(tmp_path, "[server]\nx = 1\n").file == "forkd.toml"


def test_a_file_without_permission_is_a_problem_not_a_traceback(tmp_path: Path):
    """A folder in place of a file stands for all errors of reading; root may read everything else."""
    with pytest.raises(ConfigError, match="cannot be read: is a directory"):
        load(tmp_path)
    assert not list(tmp_path.iterdir())
