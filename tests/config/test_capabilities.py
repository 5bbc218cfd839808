"""dns, state, connect, threads: forkd/config/capabilities.py and capability_grants.py, through load()."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forkd.config.capabilities import normal_target, suffix_covers
from forkd.config.load import LoadedConfig
from forkd.config.problems import Problem
from forkd.config.schema import Capabilities
from forkd.config.show import as_data
from tests.support import config_files

MANIFEST = 'name = "mine"\nversion = "1"\napi = 1\nhooks = ["connect", "rcpt"]\n'
WANTS = "[wants.capabilities]\n"


def files(manifest: str, entry: str) -> dict[str, str]:
    return {
        "plugins.d__mine__plugin_toml": MANIFEST + manifest,
        "plugins.d__mine__mine_py": "",
        "plugins.d__10-mine_toml": 'plugin = "./mine"\n' + entry,
    }


def loaded(folder: Path, manifest: str, entry: str, config: str = "") -> LoadedConfig:
    return config_files.loaded(folder, config, **files(manifest, entry))


def capabilities(folder: Path, manifest: str, entry: str) -> Capabilities:
    (only,) = loaded(folder, manifest, entry).plugins
    return only.capabilities


def problem(folder: Path, manifest: str, entry: str, config: str = "") -> Problem:
    return config_files.problem(folder, config, **files(manifest, entry))


@pytest.mark.parametrize(
    ("want", "grant", "given"),
    [
        (
            'dns = { suffixes = ["zen.example"], reason = "because" }',
            'dns = ["zen.example"]',
            Capabilities(dns=("zen.example",)),
        ),
        ('dns = { suffixes = ["any"], reason = "because" }', 'dns = ["any"]', Capabilities(dns=("any",))),
        ('state = "because"', "state = true", Capabilities(state=True)),
        ("threads = { count = 4, reason = 'because' }", "threads = 4", Capabilities(threads=4)),
    ],
)
def test_each_is_granted_in_so_many_words_or_nothing_starts(
    tmp_path: Path, want: str, grant: str, given: Capabilities
):
    """plugins.md: a want that is not granted stops start-up with one clear line."""
    found = problem(tmp_path, WANTS + want, "")
    assert "the plugin mine wants" in found.rule
    assert '"because"' in found.rule
    assert f"write {grant} below [grants]" in found.hint
    assert capabilities(tmp_path, WANTS + want, f"[grants]\n{grant}\n") == given


CONNECTS = WANTS + 'connect = { targets = ["clamd"], reason = "because" }\n'


def test_where_a_connection_goes_is_the_admins_to_say(tmp_path: Path):
    """The author has a name for it, and no address."""
    found = problem(tmp_path, CONNECTS, "")
    assert "wants to connect to clamd" in found.rule
    assert 'write connect = { clamd = "HOST:PORT or unix:/path" } below [grants]' in found.hint
    granted = capabilities(tmp_path, CONNECTS, '[grants]\nconnect = { clamd = "unix:/run/a/../clamd.ctl" }\n')
    assert granted.connect == {"clamd": "unix:/run/clamd.ctl"}
    assert granted.brokered


def test_a_target_that_nobody_asks_for_is_said(tmp_path: Path):
    """A slip in its name would be a grant that does nothing."""
    entry = '[grants]\nconnect = { clamd = "127.0.0.1:3310", clam = "127.0.0.1:3311" }\n'
    result = loaded(tmp_path, CONNECTS, entry)
    assert any("grants connect clam, which mine does not want" in note for note in result.notes)
    assert result.plugins[0].capabilities.connect == {"clamd": "127.0.0.1:3310"}


@pytest.mark.parametrize("grant", ['dns = ["any"]', "state = true", "threads = 2"])
def test_what_is_granted_and_not_wanted_gives_nothing(tmp_path: Path, grant: str):
    """The manifest is the upper bound."""
    result = loaded(tmp_path, "", f"[grants]\n{grant}\n")
    assert result.plugins[0].capabilities == Capabilities()
    assert not result.plugins[0].capabilities.brokered
    name = grant.partition(" ")[0]
    assert any(f"grants {name}, which mine does not want" in note for note in result.notes)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("127.0.0.1:3310", "127.0.0.1:3310"),
        ("[2001:DB8::1]:25", "[2001:db8::1]:25"),
        ("Scanner.Example.org:3310", "scanner.example.org:3310"),
        ("bücher.example:25", "xn--bcher-kva.example:25"),
        ("localhost:25", "localhost:25"),
        ("unix:/run//a/b", "unix:/run/a/b"),
    ],
)
def test_targets_have_one_form(text: str, normal: str):
    """The broker and whoever reads `plugin show` see the same."""
    assert normal_target(text) == normal


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("/run/clamd.ctl", 'write "unix:/run/clamd.ctl"'),
        ("2001:db8::1:25", 'write "[2001:db8::1]:25"'),
        ("unix:clamd.ctl", ""),
        ("unix:@clamd", ""),
        ("unix:/" + "x" * 107, ""),
        ("127.0.0.1", ""),
        ("127.0.0.1:0", ""),
        ("127.0.0.1:70000", ""),
        ("127.0.0.256:25", ""),
        ("[127.0.0.1]:25", ""),
        ("a b:25", ""),
    ],
)
def test_an_address_that_is_none_is_refused(tmp_path: Path, text: str, hint: str):
    """Before a session finds out."""
    found = problem(tmp_path, CONNECTS, f"[grants]\nconnect = {{ clamd = {json.dumps(text)} }}\n")
    assert (found.key, found.hint) == ("clamd", hint)
    assert found.rule.startswith('this is "HOST:PORT"')


# --- suffixes -----------------------------------------------------------------------------------------

LOOKS = WANTS + 'dns = { suffixes_in = ["zones"], reason = "r" }\n[settings.zones]\ntype = "strings"\n'
LOOKS += 'default = []\n[settings.zone]\ntype = "string"\ndefault = ""\n'


@pytest.mark.parametrize(
    ("granted", "wanted", "covered"),
    [
        ("example.org", "example.org", True),
        ("example.org", "zen.example.org", True),
        ("zen.example.org", "example.org", False),
        ("ample.org", "example.org", False),
        ("any", "example.org", True),
        ("any", "any", True),
        ("org", "any", False),
    ],
)
def test_a_suffix_covers_whole_labels(granted: str, wanted: str, covered: bool):
    """Names below it, not names that end in the same letters."""
    assert suffix_covers(granted, wanted) is covered


def test_zones_of_a_setting_are_wanted_and_need_grants(tmp_path: Path):
    """What stands behind a blank is the plugin's; no zone, no want."""
    assert capabilities(tmp_path, LOOKS, "") == Capabilities()
    settings = '[settings]\nzones = ["Zen.Example  3", "bl.bücher.example", "zen.example 5"]\n'
    found = problem(
        tmp_path, LOOKS, settings + '[grants]\ndns = ["example"]\n'.replace("example", "zen.example")
    )
    assert "wants to look up names below bl.xn--bcher-kva.example, which is not granted" in found.rule
    grants = '[grants]\ndns = ["example"]\n'
    assert capabilities(tmp_path, LOOKS, settings + grants).dns == ("zen.example", "bl.xn--bcher-kva.example")


def test_a_zone_that_is_no_name_is_the_admins_slip(tmp_path: Path):
    """In his setting, not in the manifest."""
    found = problem(tmp_path, LOOKS, '[settings]\nzones = ["zen..example 3"]\n[grants]\ndns = ["any"]\n')
    assert (Path(found.file).name, found.key, found.table) == ("10-mine.toml", "zones", "[settings]")


def test_any_is_granted_by_any_alone(tmp_path: Path):
    """Names can carry data out: nothing less than the word allows it."""
    manifest = WANTS + 'dns = { suffixes = ["any"], reason = "r" }\n'
    found = problem(tmp_path, manifest, '[grants]\ndns = ["org", "com"]\n')
    assert "wants to look up any name (names can carry data out), which is not granted" in found.rule
    assert 'write dns = ["any"] below [grants]' in found.hint


@pytest.mark.parametrize("grant", ['"*.example"', '".example"', '"example."', '"a b"', '""'])
def test_a_grant_is_a_name(tmp_path: Path, grant: str):
    """Else it would cover nothing, or too much."""
    manifest = WANTS + 'dns = { suffixes = ["x.example"], reason = "r" }\n'
    found = problem(tmp_path, manifest, f"[grants]\ndns = [{grant}]\n")
    assert (found.key, "this is a domain name" in found.rule) == ("dns", True)


def test_names_with_underscores_are_looked_up_too(tmp_path: Path):
    """RFC 8552: _dmarc, _domainkey, _spf."""
    manifest = WANTS + 'dns = { suffixes = ["_spf.example.org"], reason = "r" }\n'
    entry = '[grants]\ndns = ["_spf.example.org"]\n'
    assert capabilities(tmp_path, manifest, entry).dns == ("_spf.example.org",)


@pytest.mark.parametrize(
    ("want", "key", "rule"),
    [
        ('dns = { reason = "r" }', "dns", "this wants nothing"),
        ('dns = { suffixes = ["a..b"], reason = "r" }', "suffixes", "this is a domain name"),
        ('dns = { suffixes_in = ["zones"], reason = "r" }', "suffixes_in", "name of a setting of type"),
        ('dns = { suffixes = ["a.b"] }', "reason", "this key must be set"),
        ('connect = { targets = [], reason = "r" }', "targets", "must not be empty"),
        ('connect = { targets = ["Clam D"], reason = "r" }', "targets", "a target's name is a small letter"),
        ("threads = { count = 0, reason = 'r' }", "count", "this is 1 to 64"),
        ("state = true", "state", "a text in quotes"),
        ('state = { reason = "r", when = { no = 1 } }', "no", "there is no such setting"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(tmp_path: Path, want: str, key: str, rule: str):
    """The author's file is blamed."""
    found = problem(tmp_path, WANTS + want, "")
    assert (Path(found.file).name, found.key) == ("plugin.toml", key)
    assert rule in found.rule


def test_a_feature_that_is_off_needs_no_grant(tmp_path: Path):
    """As with powers: `when`."""
    manifest = '[settings]\nkeep = { type = "boolean", default = false }\n' + WANTS
    manifest += 'state = { reason = "r", when = { keep = true } }\n'
    assert not capabilities(tmp_path, manifest, "").state
    assert "to keep keys and values" in problem(tmp_path, manifest, "[settings]\nkeep = true\n").rule


def test_fewer_threads_than_wanted_do_not_start(tmp_path: Path):
    """It would fail at the first mail."""
    manifest = WANTS + "threads = { count = 4, reason = 'r' }"
    assert "write threads = 4" in problem(tmp_path, manifest, "[grants]\nthreads = 3\n").hint
    assert capabilities(tmp_path, manifest, "[grants]\nthreads = 9\n").threads == 4


def test_they_are_shown(tmp_path: Path):
    """`config show --effective`."""
    shown = as_data(loaded(tmp_path, CONNECTS, '[grants]\nconnect = { clamd = "127.0.0.1:3310" }\n'))
    assert shown["plugin"]["mine"]["capabilities"] == {
        "dns": [],
        "state": False,
        "connect": {"clamd": "127.0.0.1:3310"},
        "threads": 0,
        "processes": 0,
        "exec": [],
    }


def test_a_new_version_that_wants_the_network_does_not_pass(tmp_path: Path):
    """Nothing is trusted because its older version was."""
    assert loaded(tmp_path, "", "").plugins
    assert "which is not granted" in problem(tmp_path, CONNECTS, "").rule


# --- groups -------------------------------------------------------------------------------------------


def pair(one: str, two: str, top: tuple[str, str] = ("", "")) -> dict[str, str]:
    """Two plugins of one group with these grants; both want dns, state, connections and threads."""
    result = {}
    for name, grants, more, count in (("a", one, top[0], 2), ("b", two, top[1], 5)):
        wants = f'dns = {{ suffixes = ["{name}.example"], reason = "r" }}\nstate = "r"\n'
        wants += f'connect = {{ targets = ["clamd", "{name}"], reason = "r" }}\n'
        wants += f'threads = {{ count = {count}, reason = "r" }}\n'
        manifest = MANIFEST.replace('"mine"', f'"{name}"') + WANTS + wants
        result[f"plugins.d__{name}__plugin_toml"] = manifest
        result[f"plugins.d__{name}__{name}_py"] = ""
        granted = f'[grants]\ndns = ["example"]\nstate = true\nthreads = 9\nconnect = {{ {grants} }}\n'
        result[f"plugins.d__10-{name}_toml"] = f'plugin = "./{name}"\ngroup = "g"\n{more}\n{granted}'
    return result


def test_what_one_member_may_do_the_group_may_do(tmp_path: Path):
    """One sandbox, one channel to the broker."""
    both = pair('clamd = "127.0.0.1:1", a = "unix:/a"', 'clamd = "127.0.0.1:1", b = "unix:/b"')
    (group,) = config_files.loaded(tmp_path, "", **both).plugins
    assert group.capabilities == Capabilities(
        dns=("a.example", "b.example"),
        state=True,
        connect={"clamd": "127.0.0.1:1", "a": "unix:/a", "b": "unix:/b"},
        threads=5,
    )


def test_a_target_of_a_group_has_one_address(tmp_path: Path):
    """Which of two would be meant?"""
    both = pair('clamd = "127.0.0.1:1", a = "unix:/a"', 'clamd = "127.0.0.1:2", b = "unix:/b"')
    found = config_files.problem(tmp_path, "", **both)
    assert (found.key, "share a sandbox and its connections" in found.rule) == ("clamd", True)


@pytest.mark.parametrize(
    ("top", "key"),
    [
        (("", 'mode = "shadow"'), "mode"),
        (("uid = 64001", "uid = 64002"), "uid"),
        (("", "uid = 64001"), "uid"),
    ],
)
def test_members_agree_on_their_fate(tmp_path: Path, top: tuple[str, str], key: str):
    """A sandbox is obeyed or not, and runs as one user."""
    both = pair('clamd = "127.0.0.1:1", a = "unix:/a"', 'clamd = "127.0.0.1:1", b = "unix:/b"', top)
    found = config_files.problem(tmp_path, "", **both)
    assert (found.key, "cannot differ in this" in found.rule) == (key, True)


# --- mode, uid ----------------------------------------------------------------------------------------


def test_shadow_is_said(tmp_path: Path):
    """Nobody should take it for a wall."""
    result = loaded(tmp_path, "", 'mode = "shadow"\n')
    assert result.plugins[0].mode == "shadow"
    assert any("mine is asked in shadow" in note and "never obeyed" in note for note in result.notes)


def test_who_is_in_shadow_knows_no_passwords(tmp_path: Path):
    """AUTH would be on, and nobody could log in."""
    manifest = '[wants.powers]\nauth = "r"\n'
    both = files(manifest, 'mode = "{}"\n[grants]\nauth = true\n')
    both["plugins.d__mine__plugin_toml"] = both["plugins.d__mine__plugin_toml"].replace('"rcpt"', '"auth"')
    config = '[listener.a]\nauth = "on"\nauth_without_tls = true\n'
    entry = both["plugins.d__10-mine_toml"]
    assert not config_files.problems(
        tmp_path, config, **both | {"plugins.d__10-mine_toml": entry.format("enforce")}
    )
    shadow = both | {"plugins.d__10-mine_toml": entry.format("shadow")}
    assert "nobody knows the passwords" in config_files.problem(tmp_path, config, **shadow).rule


def test_a_uid_is_one_plugins(tmp_path: Path):
    """Who shares it can stop the other and read its files."""
    one = files("", "uid = 64001\n")
    other = {
        "plugins.d__b__plugin_toml": MANIFEST.replace('"mine"', '"b"'),
        "plugins.d__b__b_py": "",
        "plugins.d__20-b_toml": 'plugin = "./b"\nuid = 64001\n',
    }
    found = config_files.problem(tmp_path, "", **one, **other)
    assert (Path(found.file).name, found.key) == ("20-b.toml", "uid")
    assert "10-mine.toml has this uid" in found.rule


@pytest.mark.parametrize(
    ("uid", "rule"),
    [(1_900_000_007, "forkd gives out 1900000000 to 1900065536 itself"), (0, "this is 1 to 4294967000")],
)
def test_a_uid_is_nobody_elses(tmp_path: Path, uid: int, rule: str):
    """Neither root's nor one that forkd gives to another plugin."""
    assert problem(tmp_path, "", f"uid = {uid}\n").rule == rule + (" (sandbox.uid_base)" if uid else "")


def test_a_uid_of_an_account_is_said_and_forkds_own_refused(tmp_path: Path):
    """The plugin may do what that user may."""
    assert any("uid 65534 is the user nobody" in note for note in loaded(tmp_path, "", "uid = 65534\n").notes)
    config = '[server]\nbroker_user = "nobody"\n'
    assert (
        "as whom forkd itself runs (server.broker_user)"
        in problem(tmp_path, "", "uid = 65534\n", config).rule
    )


# --- forkd.toml ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "rule"),
    [
        ('[dns]\nservers = ["ns.example.org"]', "servers", "this is a name server's IP address"),
        ('[dns]\nservers = ["127.0.0.1:0"]', "servers", "this is a name server's IP address"),
        ('[sandbox]\nrequire = ["namespace"]', "require", "no such layer"),
        ('[sandbox]\nrequire = ["cgroup"]\ncgroup = "off"', "cgroup", "sandbox.require asks for this layer"),
        ("[breaker]\nnetworks = 1", "networks", "this is 2 to 1000"),
        ('[server]\nbroker_user = "A B"', "broker_user", "this is the name of a system user"),
        ('[state]\nmax_value = "1MiB"', "max_value", "this is 1B to 64KiB"),
    ],
)
def test_what_forkd_toml_says_of_plugins_is_checked(tmp_path: Path, text: str, key: str, rule: str):
    """File, table, key, rule."""
    found = problem(tmp_path, "", "", text)
    assert (found.key, found.rule.startswith(rule)) == (key, True)


def test_name_servers_have_ports(tmp_path: Path):
    """Such as a resolver of one's own."""
    config = '[dns]\nservers = ["127.0.0.1:5353", "::1", "[::1]:53"]\n'
    assert loaded(tmp_path, "", "", config).config.dns.servers == ("127.0.0.1:5353", "::1", "[::1]:53")


def test_records_of_mail_are_said(tmp_path: Path):
    """They lie there, and hold what people wrote."""
    assert any("hold mail" in note for note in loaded(tmp_path, "", "", "[crash]\nkeep = 9\n").notes)


def test_a_lookup_that_outlives_its_call_is_said(tmp_path: Path):
    """A dead name server would be the plugin's failure."""
    manifest = WANTS + 'dns = { suffixes = ["a.example"], reason = "r" }\n'
    entry = '[grants]\ndns = ["a.example"]\n[limits]\ntimeout = "{}"\n'
    said = "\n".join(loaded(tmp_path, manifest, entry.format("2s")).notes)
    assert "dns.timeout = 5s is longer than the plugin mine has for a call (2s)" in said
    assert "dns.timeout" not in "\n".join(loaded(tmp_path, manifest, entry.format("5s")).notes)
