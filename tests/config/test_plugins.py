"""Manifest and entry brought together: forkd/config/manifest.py and entry.py, through load()."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forkd.config.load import LoadedConfig
from forkd.config.problems import Problem
from forkd.config.schema import PluginConfig, PluginLimits, Powers
from forkd.config.stock import PLUGINS, stock_plugins
from tests.support import config_files

MANIFEST = """\
name = "mine"
version = "1.2"
api = 1
hooks = ["mail", "message"]
"""
ENTRY = 'plugin = "./mine"\n'


def files(manifest: str, entry: str, name: str) -> dict[str, str]:
    return {
        "plugins.d__mine__plugin_toml": MANIFEST + manifest,
        "plugins.d__mine__mine_py": "",
        "plugins.d__list.txt": "x",
        f"plugins.d__{name}_toml": ENTRY + entry,
    }


def loaded(folder: Path, manifest: str = "", entry: str = "", name: str = "10-mine") -> LoadedConfig:
    return config_files.loaded(folder, "", **files(manifest, entry, name))


def plugin(folder: Path, manifest: str = "", entry: str = "", name: str = "10-mine") -> PluginConfig:
    (only,) = loaded(folder, manifest, entry, name).plugins
    return only


def problem(folder: Path, manifest: str = "", entry: str = "", name: str = "10-mine") -> Problem:
    return config_files.problem(folder, "", **files(manifest, entry, name))


def test_a_plugin_that_wants_nothing_gets_nothing(tmp_path: Path):
    """plugins.md: without a grant a plugin can deny, defer and disconnect, nothing else."""
    mine = plugin(tmp_path)
    assert (mine.name, mine.version, mine.module, mine.order) == ("mine", "1.2", "mine.py", 10)
    assert (mine.folder, mine.hooks) == (tmp_path / "plugins.d/mine", ("mail", "message"))
    assert (mine.powers, mine.reads, mine.files) == (Powers(), (), ())
    assert (mine.limits, mine.on_failure, mine.trusted) == (PluginLimits(), "disconnect", False)


# --- wants and grants -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wants", "grant"),
    [
        ('[wants.powers]\naccept = "because"', "accept = true"),
        ('[wants.powers]\ndiscard = "because"', "discard = true"),
        (
            '[wants.powers]\nedit_headers = { names = ["X-A", "X-B"], reason = "because" }',
            'edit_headers = ["X-A", "X-B"]',
        ),
        ('[wants.reads]\nbody = "because"', 'reads = ["body"]'),
    ],
)
def test_a_want_that_is_not_granted_stops_start_up_and_names_the_grant(
    tmp_path: Path, wants: str, grant: str
):
    """plugins.md: one clear line, with the author's reason, and what to write to allow it."""
    found = problem(tmp_path, wants)
    assert "the plugin mine wants" in found.rule
    assert '"because"' in found.rule
    assert f"write {grant} below [grants]" in found.hint
    assert plugin(tmp_path, wants, f"[grants]\n{grant}\n")


def test_granted_wants_are_in_force(tmp_path: Path):
    """What is wanted and granted, no more: a wider grant does not widen the plugin."""
    wants = """
        [wants.powers]
        accept = "a"
        edit_headers = { names = ["X-Score"], reason = "b" }
        [wants.reads]
        headers = "c"
    """
    grants = '[grants]\naccept = true\nedit_headers = ["x-*"]\nreads = ["headers", "envelope"]\n'
    result = loaded(tmp_path, wants, grants)
    (mine,) = result.plugins
    assert mine.powers == Powers(accept=True, edit_headers=("X-Score",))
    assert mine.reads == ("headers",)
    assert any("grants reads envelope, which mine does not want" in note for note in result.notes)


def test_a_header_pattern_does_not_cover_a_wider_one(tmp_path: Path):
    """X-A* is not enough for a plugin that wants X-*."""
    wants = '[wants.powers]\nedit_headers = { names = ["X-*"], reason = "r" }\n'
    assert "to edit the header X-*" in problem(tmp_path, wants, '[grants]\nedit_headers = ["X-A*"]\n').rule


FILES = '[settings.list]\ntype = "path"\ndefault = ""\n[wants.files]\nlist = "the names"\n'


def test_a_file_is_named_by_a_setting_and_granted(tmp_path: Path):
    """The plugin gets the absolute path; the sandbox opens that file and no other."""
    mine = plugin(tmp_path, FILES, '[settings]\nlist = "list.txt"\n[grants]\nfiles = ["list.txt"]\n')
    assert mine.settings == {"list": str(tmp_path / "plugins.d/list.txt")}
    assert mine.files == (tmp_path / "plugins.d/list.txt",)


def test_a_grant_of_files_that_nothing_wants_is_said(tmp_path: Path):
    """It opens nothing, and the admin may think it does."""
    notes = loaded(tmp_path, "", '[grants]\nfiles = ["list.txt"]\n').notes
    assert any("grants files, which mine does not want" in note for note in notes)


def test_who_reads_messages_needs_copies_of_them(tmp_path: Path):
    """Without a budget for copies every message would be 451 4.3.2."""
    both = files('[wants.reads]\nbody = "r"\n', '[grants]\nreads = ["body"]\n', "10-mine")
    found = config_files.problem(tmp_path, '[sandbox]\nmessage_copies = "0B"\n', **both)
    assert "allows no copies" in found.rule


def test_a_folder_grants_what_lies_in_it(tmp_path: Path):
    """One grant for a folder of lists; what no setting names in there stays closed, and that is said."""
    found = loaded(tmp_path, FILES, '[settings]\nlist = "list.txt"\n[grants]\nfiles = [".", "/"]\n')
    file = tmp_path / "plugins.d/list.txt"
    assert found.plugins[0].files == (file,)
    (one, other) = [note for note in found.notes if "grants files" in note]
    assert one.endswith(f"grants files {file.parent}, more than mine wants: it gets {file}")
    assert other.endswith(f"grants files /, more than mine wants: it gets {file}")


def test_a_granted_file_that_nothing_wants_is_said(tmp_path: Path):
    """Beside one that is wanted."""
    grants = '[settings]\nlist = "list.txt"\n[grants]\nfiles = ["list.txt", "mine/mine.py"]\n'
    found = loaded(tmp_path, FILES, grants)
    assert found.plugins[0].files == (tmp_path / "plugins.d/list.txt",)
    assert any("mine.py, more than mine wants: it gets nothing of it" in note for note in found.notes)


def test_a_link_in_a_granted_folder_leads_nowhere_else(tmp_path: Path):
    """The folder is granted as it stands, never what somebody's link there names; unless that is granted."""
    (tmp_path / "lists").mkdir()
    (tmp_path / "secret").touch()
    (tmp_path / "lists/link").symlink_to(tmp_path / "secret")
    entry = '[settings]\nlist = "../lists/link"\n[grants]\nfiles = ["../lists"{}]\n'
    found = loaded(tmp_path, FILES, entry.format(""))
    assert found.plugins[0].files == (tmp_path / "lists",)
    assert any("where links are that settings name: mine may read all of it" in one for one in found.notes)
    both = plugin(tmp_path, FILES, entry.format(', "../secret"'))
    assert both.files == (tmp_path / "lists", tmp_path / "secret")
    assert plugin(tmp_path, FILES, entry.format(', "../lists/link"')).files[-1] == tmp_path / "lists/link"


def test_a_file_that_is_not_granted_is_named_with_the_grant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the hint says to write is right in the entry, wherever the command was called."""
    monkeypatch.chdir(tmp_path)
    settings = '[settings]\nlist = "list.txt"\n'
    found = problem(tmp_path, FILES, settings)
    assert "wants to read" in found.rule
    grant = 'files = ["list.txt"]'
    assert f"write {grant} below [grants]" in found.hint
    assert plugin(tmp_path, FILES, f"{settings}[grants]\n{grant}\n").files


def test_an_empty_path_needs_no_grant(tmp_path: Path):
    """No file is named."""
    assert plugin(tmp_path, FILES).settings == {"list": ""}


@pytest.mark.parametrize("named", ["grants", "settings"])
def test_a_file_that_is_not_there_is_an_error(tmp_path: Path, named: str):
    """A list that cannot be read is a filter that filters nothing."""
    entry = {
        "grants": '[grants]\nfiles = ["no.txt"]\n',
        "settings": '[settings]\nlist = "no.txt"\n[grants]\nfiles = ["."]\n',
    }[named]
    assert problem(tmp_path, FILES, entry).rule == "there is no such file"


def test_a_default_path_lies_in_the_plugins_folder_and_needs_no_grant(tmp_path: Path):
    """A plugin may always read its own folder: its module lies there."""
    manifest = FILES.replace('default = ""', 'default = "mine.py"')
    assert plugin(tmp_path, manifest).settings == {"list": str(tmp_path / "plugins.d/mine/mine.py")}


def test_an_editing_plugin_cannot_be_skipped(tmp_path: Path):
    """plugins.md: skip is refused by the configuration check for plugins that edit."""
    wants = '[wants.powers]\nedit_headers = { names = ["X-A"], reason = "r" }\n'
    found = problem(tmp_path, wants, 'on_failure = "skip"\n[grants]\nedit_headers = ["X-A"]\n')
    assert "cannot be skipped" in found.rule


def test_other_plugins_can_be_skipped(tmp_path: Path):
    """The admin's explicit choice."""
    assert plugin(tmp_path, entry='on_failure = "skip"\n').on_failure == "skip"


# --- settings ---------------------------------------------------------------------------------------


def test_settings_have_their_declared_types_and_defaults(tmp_path: Path):
    """plugins.md: settings are validated against the manifest; what the plugin gets is JSON-able."""
    manifest = """
        [settings]
        s = { type = "string", default = "d" }
        i = { type = "integer" }
        n = { type = "number", default = 1 }
        b = { type = "boolean", default = false }
        l = { type = "strings", default = ["a"] }
    """
    settings = plugin(tmp_path, manifest, '[settings]\ni = 3\nb = true\nl = ["x", "y"]\n').settings
    assert settings == {"s": "d", "i": 3, "n": 1.0, "b": True, "l": ["x", "y"]}
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("entry", "rule", "hint"),
    [
        ("[settings]\nlimti = 3\nlimit = 1", "no such key", 'did you mean "limit"?'),
        ('[settings]\nlimit = "3"', "this is a whole number", "write 3 without quotes"),
        ("", "this setting must be given (integer): how many", ""),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, entry: str, rule: str, hint: str):
    """The admin's file is blamed, with the manifest's own words."""
    found = problem(tmp_path, '[settings.limit]\ntype = "integer"\ndescription = "how many"\n', entry)
    assert (Path(found.file).name, found.rule, found.hint) == ("10-mine.toml", rule, hint)


def test_a_default_of_the_wrong_type_is_the_authors_mistake(tmp_path: Path):
    """The manifest is blamed."""
    found = problem(tmp_path, '[settings.a]\ntype = "integer"\ndefault = "x"\n')
    assert (Path(found.file).name, found.line, found.key) == ("plugin.toml", 7, "default")


# --- limits -----------------------------------------------------------------------------------------


def test_a_stricter_suggestion_applies_and_a_looser_one_does_not(tmp_path: Path):
    """A stranger's plugin must not help itself to memory; the admin is told what it asks for."""
    result = loaded(tmp_path, '[limits]\ntimeout = "1s"\nmemory = "1GiB"\nsandboxes = 8\n')
    limits = result.plugins[0].limits
    assert (limits.timeout, limits.memory, limits.sandboxes) == (1.0, 256 << 20, 8)
    assert any("suggests memory = 1GiB; the default, 256MiB" in note for note in result.notes)


def test_the_entrys_limits_win(tmp_path: Path):
    """In both directions, even when they are the default's value."""
    limits = plugin(
        tmp_path, '[limits]\ntimeout = "1s"\n', '[limits]\ntimeout = "5s"\nmemory = "1GiB"\n'
    ).limits
    assert (limits.timeout, limits.memory) == (5.0, 1 << 30)


# --- which plugin, and when -------------------------------------------------------------------------


def test_the_number_in_the_files_name_is_the_order(tmp_path: Path):
    """plugins.d/NN-name.toml; `order` overrides it."""
    assert plugin(tmp_path, name="07-x").order == 7
    (tmp_path / "plugins.d/07-x.toml").unlink()
    assert plugin(tmp_path, entry="order = 99\n", name="x").order == 99


def test_without_a_number_the_order_must_be_said(tmp_path: Path):
    """The order is the admin's, never the alphabet's."""
    assert problem(tmp_path, name="mine").hint == "set order, or name the file 50-mine.toml"


def test_a_plugin_that_is_off_is_not_loaded(tmp_path: Path):
    """Its entry is read all the same, so that switching it on brings no surprise."""
    assert not loaded(tmp_path, "", "enabled = false\n").plugins
    assert problem(tmp_path, "", "enabled = false\ncolour = 1\n").key == "colour"


def test_one_plugin_is_switched_on_once(tmp_path: Path):
    """Logs, sockets and grants go by its name."""
    both = files("", "", "10-mine") | files("", "", "20-mine")
    found = config_files.problem(tmp_path, "", **both)
    assert Path(found.file).name == "20-mine.toml"
    assert "10-mine.toml has switched on a plugin of this name" in found.rule


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("block-senders", 'did you mean "block_senders"?'),
        ("mine", 'a path has a slash in it: write "./mine"'),
        ("./mine/mine.py", 'name the plugin\'s folder: "mine"'),
        ("./absent", ""),
    ],
)
def test_a_plugin_that_is_not_found_gets_help(tmp_path: Path, name: str, hint: str):
    """A stock plugin by name, any other by the path of its folder."""
    both = files("", "", "10-mine") | {"plugins.d__10-mine_toml": f'plugin = "{name}"\n'}
    found = config_files.problem(tmp_path, "", **both)
    assert (found.key, found.hint) == ("plugin", hint)


def test_stock_plugins_are_found_and_their_manifests_are_right():
    """What comes with forkd passes its own checks (the entries in etc/plugins.d do, in test_load.py)."""
    assert {"block_senders", "mark"} <= set(stock_plugins())
    assert PLUGINS.is_dir()


# --- manifests --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "key", "rule"),
    [
        ("api = 1", "api = 2", "api", "this forkd has version 1 of the plugin API"),
        ('version = "1.2"', "", "version", "this key must be set"),
        ('name = "mine"', 'name = "My Plugin"', "name", "a plugin's name is a small letter"),
        ('name = "mine"', 'name = "other"', "name", "there is no"),
        ('["mail", "message"]', '["mial"]', "hooks", 'this is "connect", "helo", "auth", "mail"'),
        ('["mail", "message"]', "[]", "hooks", "this must not be empty"),
        (
            '["mail", "message"]',
            '["auth"]',
            "hooks",
            "the hook auth is shown passwords",
        ),
        ("api = 1", 'api = 1\nkind = "indimail"', "kind", 'this is "python"'),
        ("api = 1", 'api = 1\nkind = "program"', "kind", "in this version of forkd: a manifest of a program"),
        ("api = 1", 'api = 1\nmodule = "../x.py"', "module", "name of a .py file in the plugin's folder"),
    ],
)
def test_a_wrong_manifest_is_named(tmp_path: Path, old: str, new: str, key: str, rule: str):
    """The same errors for authors as for admins."""
    both = files("", "", "10-mine") | {"plugins.d__mine__plugin_toml": MANIFEST.replace(old, new)}
    found = config_files.problem(tmp_path, "", **both)
    assert (Path(found.file).name, found.key) == ("plugin.toml", key)
    assert found.rule.removeprefix(str(tmp_path)).startswith(rule) or rule in found.rule


@pytest.mark.parametrize(
    ("wants", "rule"),
    [
        ('[wants.powers]\nedit_headers = { names = ["X A"], reason = "r" }', "name of a header field"),
        ('[wants.powers]\nedit_headers = { names = ["X:"], reason = "r" }', "name of a header field"),
        ('[wants.powers]\nedit_headers = { names = ["*-X"], reason = "r" }', "name of a header field"),
        ('[wants.powers]\nedit_headers = { reason = "r" }', "this wants nothing"),
        ('[wants.powers]\nedit_headers = { names_in = ["add"], reason = "r" }', "name of a setting of type"),
        (
            (
                '[wants.powers]\nedit_headers = { names_in = ["n"], reason = "r" }\n'
                '[settings.n]\ntype = "integer"'
            ),
            "name of a setting of type",
        ),
        ('[wants.powers]\nedit_headers = { names = ["X-A"] }', "this key must be set"),
        ('[wants.powers]\nadd_recipient = { domains = ["a b"], reason = "r" }', "this is a domain name"),
        ('[wants.powers]\nadd_recipient = { domains = [], reason = "r" }', "must not be empty"),
        ('[wants.powers]\nadd_recipient = "r"', "this is a table"),
        ('[wants.powers]\nexport = { names = ["A B"], reason = "r" }', "a fact's name"),
        ('[wants.powers]\nexport = { names = ["LD_PRELOAD"], reason = "r" }', "not a plugin's to set"),
        ('[wants.powers]\nexport = { names = ["TCPREMOTEIP"], reason = "r" }', "not a plugin's to set"),
        ('[wants.powers]\nexport = { names = ["score"], reason = "r" }', "capital letter"),
        (
            '[wants.powers]\nedit_headers = { names = ["Received"], reason = "r" }',
            "no plugin edits this field",
        ),
        ('[wants.powers]\nauth = "r"', "this is for the hook auth"),
        ('[wants.powers]\nrewrite_recipient = "r"', "this is for the hook rcpt"),
        ('[wants.powers]\ndiscard = { reason = "r", when = { no = 1 } }', "there is no such setting"),
        (
            '[wants.powers]\ndiscard = { reason = "r", when = { n = "1" } }\n[settings.n]\ntype = "integer"',
            "this is a whole number",
        ),
        ('[wants.powers]\naccept = ""', "must not be empty"),
        ("[wants.powers]\naccept = true", "a text in quotes"),
        ('[wants.files]\nlist = "r"', "there is none of this name"),
        ('[settings.a]\ntype = "string"\n[wants.files]\na = "r"', "must be of type path"),
        ('[settings.a]\ntype = "path"\ndefault = ""', "can only be read when it is wanted"),
        ('[settings.a]\ntype = "text"', '"string"'),
    ],
)
def test_a_manifest_whose_wants_make_no_sense_is_refused(tmp_path: Path, wants: str, rule: str):
    """Each want has its reason, and what it needs."""
    assert rule in problem(tmp_path, wants).rule


@pytest.mark.parametrize(
    "wants",
    [
        '[wants.reads]\nbody = "r"',
        '[wants.powers]\nedit_headers = { names = ["X-A"], reason = "r" }',
        '[wants.powers]\nedit_body = "r"',
        '[wants.powers]\nadd_recipient = { domains = ["*"], reason = "r" }',
        '[wants.powers]\ndelete_recipient = "r"',
        '[wants.powers]\nchange_sender = "r"',
        '[wants.powers]\nquarantine = "r"',
        '[wants.powers]\ndiscard = "r"',
    ],
)
def test_a_want_needs_the_hook_at_which_it_is_used(tmp_path: Path, wants: str):
    """A want that could never be used is a mistake."""
    both = files("", "", "10-mine") | {
        "plugins.d__mine__plugin_toml": MANIFEST.replace(', "message"', "") + wants + "\n"
    }
    assert "not in hooks" in config_files.problem(tmp_path, "", **both).rule


# --- ranges and choices of settings -------------------------------------------------------------------

BOUNDED = """
    [settings.most]
    type = "integer"
    default = 4
    min = 0
    max = 67108864
    [settings.share]
    type = "number"
    default = 0.5
    min = 0.25
    [settings.act]
    type = "string"
    default = "refuse"
    choices = ["refuse", "hold"]
    [settings.kinds]
    type = "strings"
    default = []
    choices = ["a", "b"]
"""


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("most = -1", "[settings] most = -1: this is 0 to 67108864"),
        ("most = 67108865", "[settings] most = 67108865: this is 0 to 67108864"),
        ("share = 0.1", "[settings] share = 0.1: this is at least 0.25"),
        (
            'act = "reject"',
            '[settings] act = "reject": this is "refuse" or "hold"',
        ),
        (
            'kinds = ["a", "c"]',
            '[settings] kinds = "c": this is "a" or "b"',
        ),
    ],
)
def test_a_setting_is_within_what_the_manifest_declares(tmp_path: Path, row: str, told: str):
    """The line in the admin's file, what is wrong, what would be right."""
    assert told in str(problem(tmp_path, BOUNDED, f"[settings]\n{row}\n"))


def test_settings_at_their_bounds_are_fine(tmp_path: Path):
    rows = 'most = 67108864\nshare = 0.25\nact = "hold"\nkinds = ["b", "a"]'
    mine = plugin(tmp_path, BOUNDED, f"[settings]\n{rows}\n")
    assert mine.settings == {"most": 67108864, "share": 0.25, "act": "hold", "kinds": ["b", "a"]}
    assert plugin(tmp_path, BOUNDED, "[settings]\nmost = 0\n").settings["most"] == 0


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ('type = "string"\nmin = 1', "type integer or number, not string"),
        ('type = "integer"\nchoices = ["1"]', "type string or strings, not integer"),
        ('type = "integer"\nmin = 2\nmax = 1', "at most max"),
        ('type = "integer"\nmin = 2\ndefault = 1', "at least 2"),
        ('type = "string"\nchoices = ["a"]\ndefault = "b"', 'this is "a"'),
    ],
)
def test_bounds_that_make_no_sense_are_the_manifests_problem(tmp_path: Path, declared: str, told: str):
    """Its author reads it; the default must fit too."""
    assert told in problem(tmp_path, f"[settings.one]\n{declared}\n").rule


@pytest.mark.parametrize(
    ("name", "row"),
    [("headers", "max_fields = -1"), ("attachments", "max_depth = -1"), ("attachments", 'action = "reject"')],
)
def test_stock_plugins_declare_their_bounds(tmp_path: Path, name: str, row: str):
    """`forkd config check` finds them, without running the plugin."""
    entry = f'plugin = "{name}"\n[settings]\n{row}\n'
    text = entry + f'[grants]\nreads = ["{"headers" if name == "headers" else "body"}"]\n'
    found = config_files.problem(tmp_path, "", **{"plugins.d__50-mine_toml": text})
    assert found.key == row.partition(" ")[0]


# --- what comes later -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        "[limits]\nfile_size = 1",
    ],
)
def test_what_comes_later_is_refused_by_name_in_an_entry(tmp_path: Path, row: str):
    """Not silently ignored, and not called a typing error."""
    assert problem(tmp_path, entry=row).rule.startswith("not in this version of forkd: ")


@pytest.mark.parametrize(
    "row",
    [
        '[wants.capabilities]\nexec = ["/bin/cat"]',
        "[limits]\nprocesses = 1",
    ],
)
def test_what_comes_later_is_refused_by_name_in_a_manifest(tmp_path: Path, row: str):
    """A plugin written for a later forkd says so itself."""
    assert problem(tmp_path, row).rule.startswith("not in this version of forkd: ")
