"""Unknown keys, types, ranges: forkd/config/reader.py, through load()."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.config_files import loaded, problem, problems


def test_an_unknown_key_names_file_line_table_and_the_nearest_key(tmp_path: Path):
    """operations.md: errors name file, line where known, table, key, the rule and the nearest valid key."""
    found = problem(tmp_path, '[server]\n\n[timeouts]\ncomand = "5m"\n')
    assert str(found) == f'{tmp_path}/forkd.toml:4: [timeouts] comand: no such key (did you mean "command"?)'


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('[timeout]\ncommand = "5m"', 'did you mean "timeouts"?'),
        ("[limits]\nmessage-size = 1", 'did you mean "message_size"?'),
        ("[limits]\nMax_Hops = 1", 'did you mean "max_hops"?'),
        ('[limits]\nidle_session = "5m"', "there is a key of that name in [timeouts]"),
        ("[log]\nxyzzy = 1", "there is format, level"),
        ("[listener.a]\ncertificate = 'x'", "there is a table [certificate] of its own"),
        ("[listener.a]\nxclient = ['::1']", "there is a key of that name in [networks]"),
        ("idle_session = '5m'", "there is a key of that name in [timeouts]"),
    ],
)
def test_an_unknown_key_gets_the_nearest_help(tmp_path: Path, text: str, hint: str):
    """Spelling, case, hyphens, the wrong table; else the list of what there is."""
    assert problem(tmp_path, text).hint == hint


@pytest.mark.parametrize(
    ("text", "value", "rule", "hint"),
    [
        ('[server]\nworkers = "4"', '"4"', "a whole number", "write 4 without quotes"),
        ("[server]\nworkers = 4.5", "4.5", "a whole number", ""),
        ("[server]\nworkers = true", "true", "a whole number", ""),
        ("[server]\nhostname = 5", "5", "a text in quotes", 'write "5"'),
        ("[limits]\nrelay_probe = 1", "1", "true or false", ""),
        ('[limits]\nrelay_probe = "true"', '"true"', "true or false", "write true without quotes"),
        ("[timeouts]\ncommand = 300", "300", "a duration needs a unit", 'write "300s"'),
        ('[timeouts]\ncommand = "5min"', '"5min"', "a duration is a number", 'write "5m"'),
        ("[limits]\nmessage_size = 1000", "1000", "a size needs a unit", 'write "1000B"'),
        ('[limits]\nmessage_size = "50MB"', '"50MB"', "a size is a number", 'write "50MiB"'),
        ('[networks]\ntrusted = "10.0.0.0/8"', '"10.0.0.0/8"', "a list", 'write ["10.0.0.0/8"]'),
        ("[networks]\ntrusted = [1]", "1", "a text in quotes", ""),
        ('[server]\ndata_dir = "~/mail"', '"~/mail"', "~ is the shell's", ""),
        ('[log]\nlevel = "warn"', '"warn"', '"debug", "info", "warning" or "error"', 'mean "warning"'),
        ('[log]\nlevel = "INFO"', '"INFO"', '"debug", "info"', 'mean "info"'),
        ("[server]\nworkers = -1", "-1", "0 to 1024", ""),
        ('[server]\nheartbeat = "1s"', '"1s"', "2s to 1h", ""),
        ('[sandbox]\nuid_base = 1000', "1000", "65536 to", ""),
        ('[domain."a.example"]\nmailboxes = "bob"', '"bob"', '"*" or a list', 'write ["bob"]'),
        ('[networks]\ntrusted = ["10.0.0.0/8", "10.0.0.0/8"]', "[", "stands twice", ""),
        ('[auth]\nmechanisms = ["PLAIN", "PLAIN"]', "[", "stands twice", ""),
        ('[auth]\nmechanisms = []', "[]", "must not be empty", ""),
        ('[limits]\nnetwork_prefix_v6 = 65', "65", "16 to 64", ""),
        ('[listener.a]\ngreeting_delay = "3m"', '"3m"', "0s to 2m", ""),
        ('[transport.x]\nkind = "mail-dir"', '"mail-dir"', '"maildir", "discard"', 'mean "maildir"'),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_rule(tmp_path: Path, text: str, value: str, rule: str, hint: str):
    """The message says what was given, what must hold, and what was probably meant."""
    found = problem(tmp_path, text)
    assert found.line == 2
    assert value in found.value
    assert rule in found.rule
    assert hint in found.hint


def test_a_missing_required_key_is_named(tmp_path: Path):
    """A transport without a kind is no transport."""
    found = problem(tmp_path, '[transport.x]\npath = "mail"\n')
    assert (found.line, found.table, found.key) == (1, "[transport.x]", "kind")
    assert 'to "maildir", "discard", ' in found.rule


def test_a_scalar_where_a_table_belongs(tmp_path: Path):
    """`queue = 5` is told to be a table, and nothing crashes on it."""
    assert "write its keys below [queue]" in problem(tmp_path, "queue = 5\n").rule


def test_all_problems_of_a_file_are_said_at_once_in_order(tmp_path: Path):
    """An admin repairs a file once, not once per error."""
    text = """\
        [server]
        workers = "x"
        colour = "red"
        [listener.a]
        address = "here"
        [limits]
        errors = 0
    """
    assert [found.line for found in problems(tmp_path, text)] == [2, 3, 5, 7]


def test_a_bad_value_has_no_consequences(tmp_path: Path):
    """A contradiction with a value that was refused would be noise."""
    text = '[timeouts]\ncommand = "1hour"\nidle_session = "1s"\n'
    assert [found.key for found in problems(tmp_path, text)] == ["command"]


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """operations.md: paths are relative to the file, wherever forkd is started."""
    folder = tmp_path / "etc"
    folder.mkdir()
    monkeypatch.chdir("/")
    config = loaded(folder, '[server]\ndata_dir = "../spool"\n').config
    assert config.server.data_dir == tmp_path / "spool"


def test_an_empty_path_is_none(tmp_path: Path):
    """So that the sample can show every key with its default."""
    assert loaded(tmp_path, '[tls]\nclient_ca = ""\n').config.tls.client_ca is None


def test_arguments_of_a_program_may_repeat(tmp_path: Path):
    """Everywhere else a word that stands twice in a list is a slip."""
    text = '[auth]\ncheckpassword = ["/bin/true", "-o", "a", "-o", "b"]\n'
    assert loaded(tmp_path, text).config.auth.checkpassword == ("/bin/true", "-o", "a", "-o", "b")
