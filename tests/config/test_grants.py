"""Powers, conditions, scopes, limits that contradict each other: forkd/config/grants.py and wants.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkd.config.load import LoadedConfig
from forkd.config.problems import Problem
from forkd.config.schema import PluginConfig, Powers, Scope
from forkd.config.show import HIDDEN, as_data, as_toml
from tests.support import config_files

MANIFEST = 'name = "mine"\nversion = "1"\napi = 1\n'
ALL_HOOKS = 'hooks = ["connect", "auth", "rcpt", "message"]\n[wants.powers]\nauth = "a"\n'
MESSAGE = 'hooks = ["message"]\n'


def files(manifest: str, entry: str) -> dict[str, str]:
    return {
        "plugins.d__mine__plugin_toml": MANIFEST + manifest,
        "plugins.d__mine__mine_py": "",
        "plugins.d__10-mine_toml": 'plugin = "./mine"\n' + entry,
    }


def loaded(folder: Path, manifest: str, entry: str, config: str = "") -> LoadedConfig:
    return config_files.loaded(folder, config, **files(manifest, entry))


def plugin(folder: Path, manifest: str, entry: str, config: str = "") -> PluginConfig:
    (only,) = loaded(folder, manifest, entry, config).plugins
    return only


def problem(folder: Path, manifest: str, entry: str, config: str = "") -> Problem:
    return config_files.problem(folder, config, **files(manifest, entry))


# --- powers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hooks", "want", "grant", "powers"),
    [
        ("message", 'quarantine = "because"', "quarantine = true", Powers(quarantine=True)),
        ("message", 'edit_body = "because"', "edit_body = true", Powers(edit_body=True)),
        ("message", 'delete_recipient = "because"', "delete_recipient = true", Powers(delete_recipient=True)),
        ("rcpt", 'rewrite_recipient = "because"', "rewrite_recipient = true", Powers(rewrite_recipient=True)),
        ("message", 'change_sender = "because"', "change_sender = true", Powers(change_sender=True)),
        ("auth", 'auth = "because"', "auth = true", Powers(auth=True)),
        (
            "message",
            'add_recipient = { domains = ["example.org"], reason = "because" }',
            'add_recipient = ["example.org"]',
            Powers(add_recipient=("example.org",)),
        ),
        (
            "mail",
            'export = { names = ["SCORE", "SPF_RESULT"], reason = "because" }',
            'export = ["SCORE", "SPF_RESULT"]',
            Powers(export=("SCORE", "SPF_RESULT")),
        ),
    ],
)
def test_each_power_is_granted_in_so_many_words_or_nothing_starts(
    tmp_path: Path, hooks: str, want: str, grant: str, powers: Powers
):
    """plugins.md: a stranger's filter must not be able to send mail to itself or wave a virus through."""
    manifest = f'hooks = ["{hooks}"]\n[wants.powers]\n{want}\n'
    found = problem(tmp_path, manifest, "")
    assert "the plugin mine wants" in found.rule
    assert '"because"' in found.rule
    assert f"write {grant} below [grants]" in found.hint
    assert plugin(tmp_path, manifest, f"[grants]\n{grant}\n").powers == powers


def test_a_grant_that_is_not_wanted_gives_nothing_and_is_said(tmp_path: Path):
    """The manifest is the upper bound, the grant the lower."""
    grants = 'edit_body = true\nexport = ["X"]\nadd_recipient = ["*"]\nedit_headers = ["X-*"]\nauth = true\n'
    result = loaded(tmp_path, MESSAGE, "[grants]\n" + grants)
    assert result.plugins[0].powers == Powers()
    for power in ("edit_body", "export", "add_recipient", "edit_headers", "auth"):
        assert any(f"grants {power}, which mine does not want" in note for note in result.notes)


@pytest.mark.parametrize(
    ("want", "grant", "note"),
    [
        (
            'powers]\nedit_headers = { names = ["X-A"], reason = "r" }',
            'edit_headers = ["X-*", "x-a"]',
            "grants edit_headers X-*, more than mine wants: it gets X-A",
        ),
        (
            'powers]\nadd_recipient = { domains = ["example.org"], reason = "r" }',
            'add_recipient = ["*"]',
            "grants add_recipient *, more than mine wants: it gets example.org",
        ),
        (
            'capabilities]\ndns = { suffixes = ["zen.example"], reason = "r" }',
            'dns = ["any", "a.zen.example"]',
            "grants dns any, more than mine wants: it gets zen.example",
        ),
        (
            'capabilities]\nthreads = { count = 2, reason = "r" }',
            "threads = 9",
            "grants threads 9, more than mine wants: it gets 2",
        ),
    ],
    ids=["edit_headers", "add_recipient", "dns", "threads"],
)
def test_a_grant_beyond_what_is_wanted_is_cut_and_said(tmp_path: Path, want: str, grant: str, note: str):
    """The plugin gets what both say; the admin is told that he wrote more."""
    notes = loaded(tmp_path, f"{MESSAGE}[wants.{want}\n", f"[grants]\n{grant}\n").notes
    (told,) = [text for text in notes if "grants" in text]
    assert told.endswith(f"plugins.d/10-mine.toml: {note}")


def test_any_recipients_wanted_are_no_more_than_those_granted(tmp_path: Path):
    """Whoever wants "*" gets the admin's domains: nothing there is too much."""
    grant = '[grants]\nadd_recipient = ["example.org"]\n'
    assert not [one for one in loaded(tmp_path, ADDS.format("*"), grant).notes if "grants" in one]


ADDS = MESSAGE + '[wants.powers]\nadd_recipient = {{ domains = ["{}"], reason = "archive" }}\n'


@pytest.mark.parametrize(
    ("wanted", "granted", "in_force"),
    [
        ("*", ["example.org"], ("example.org",)),
        ("*", ["*"], ("*",)),
        ("example.org", ["*"], ("example.org",)),
        ("EXAMPLE.org", ["example.ORG"], ("example.org",)),
    ],
)
def test_domains_of_added_recipients(tmp_path: Path, wanted: str, granted: list[str], in_force: tuple[str]):
    """An author cannot know the admin's domains: "*" is whatever is granted; "*" granted is all of ours."""
    entry = "[grants]\nadd_recipient = [" + ", ".join(f'"{name}"' for name in granted) + "]\n"
    assert plugin(tmp_path, ADDS.format(wanted), entry).powers.add_recipient == in_force


@pytest.mark.parametrize("domain", ["else.example", "example", "*.example.org", "a b"])
def test_recipients_are_added_in_domains_of_ours(tmp_path: Path, domain: str):
    """A filter that may add any address could send every message to itself."""
    found = problem(tmp_path, ADDS.format("*"), f'[grants]\nadd_recipient = ["{domain}"]\n')
    assert (found.key, found.rule) == ("add_recipient", "recipients can only be added in domains of ours")


@pytest.mark.parametrize(
    ("grant", "rule"),
    [('export = ["PATH"]', "not a plugin's to set"), ('edit_headers = ["X A"]', "name of a header field")],
)
def test_grants_are_names_too(tmp_path: Path, grant: str, rule: str):
    """A slip there would be a grant that covers nothing."""
    assert rule in problem(tmp_path, MESSAGE, f"[grants]\n{grant}\n").rule


@pytest.mark.parametrize(
    ("hooks", "want", "grant"),
    [
        ("message", 'edit_body = "r"', "edit_body = true"),
        ("message", 'add_recipient = { domains = ["*"], reason = "r" }', 'add_recipient = ["*"]'),
        ("message", 'delete_recipient = "r"', "delete_recipient = true"),
        ("rcpt", 'rewrite_recipient = "r"', "rewrite_recipient = true"),
        ("message", 'change_sender = "r"', "change_sender = true"),
    ],
)
def test_no_editing_plugin_can_be_skipped(tmp_path: Path, hooks: str, want: str, grant: str):
    """plugins.md: skip is refused by the configuration check for plugins that edit."""
    manifest = f'hooks = ["{hooks}"]\n[wants.powers]\n{want}\n'
    assert (
        "cannot be skipped" in problem(tmp_path, manifest, f'on_failure = "skip"\n[grants]\n{grant}\n').rule
    )


# --- wants that depend on settings --------------------------------------------------------------------

CONDITIONAL = """\
hooks = ["message"]
[settings]
action = { type = "string", default = "refuse" }
add = { type = "strings", default = [] }
[wants.powers]
quarantine = { reason = "holds", when = { action = "hold" } }
edit_headers = { names_in = ["add"], reason = "adds" }
[wants.reads]
body = { reason = "looks", when = { action = "hold" } }
"""


def test_a_feature_that_is_off_needs_no_grant(tmp_path: Path):
    """Least privilege: with these settings it cannot come to that."""
    mine = plugin(tmp_path, CONDITIONAL, "")
    assert (mine.powers, mine.reads) == (Powers(), ())


def test_a_feature_that_is_on_needs_its_grants(tmp_path: Path):
    """And is told which."""
    settings = '[settings]\naction = "hold"\n[grants]\n'
    assert "to hold messages back" in problem(tmp_path, CONDITIONAL, settings + 'reads = ["body"]\n').rule
    assert "to read the body" in problem(tmp_path, CONDITIONAL, settings + "quarantine = true\n").rule
    mine = plugin(tmp_path, CONDITIONAL, settings + 'quarantine = true\nreads = ["body"]\n')
    assert (mine.powers, mine.reads) == (Powers(quarantine=True), ("body",))


def test_headers_that_settings_name_are_wanted(tmp_path: Path):
    """Up to the colon; the admin's own settings are checked like grants."""
    settings = '[settings]\nadd = ["X-A: yes", "X-B", "X-A: no"]\n'
    assert "to edit the header X-A, X-B" in problem(tmp_path, CONDITIONAL, settings).rule
    mine = plugin(tmp_path, CONDITIONAL, settings + '[grants]\nedit_headers = ["X-*"]\n')
    assert mine.powers == Powers(edit_headers=("X-A", "X-B"))
    wrong = problem(tmp_path, CONDITIONAL, '[settings]\nadd = ["X A: 1"]\n[grants]\nedit_headers = ["*"]\n')
    assert (wrong.key, "name of a header field" in wrong.rule) == ("add", True)


def test_skip_is_about_what_is_edited_with_these_settings(tmp_path: Path):
    """A plugin that edits nothing can be skipped."""
    assert plugin(tmp_path, CONDITIONAL, 'on_failure = "skip"\n').on_failure == "skip"
    on = 'on_failure = "skip"\n[settings]\nadd = ["X-A: 1"]\n[grants]\nedit_headers = ["X-A"]\n'
    assert "cannot be skipped" in problem(tmp_path, CONDITIONAL, on).rule


# --- scope ------------------------------------------------------------------------------------------


def test_a_scope_is_brought_into_one_form(tmp_path: Path):
    """Networks as such, domains in A-labels: whoever asks compares texts."""
    config = '[listener.in]\n[domain."Bücher.Example"]\n'
    entry = '[scope]\nlisteners = ["in"]\nnetworks = ["192.0.2.1"]\ndomains = ["bücher.EXAMPLE"]\n'
    scope = plugin(tmp_path, MESSAGE, entry, config).scope
    assert scope == Scope(listeners=("in",), networks=("192.0.2.1/32",), domains=("xn--bcher-kva.example",))


def test_a_scope_may_name_a_subdomain_of_ours(tmp_path: Path):
    """[domain."*.example.org"] has all of them, and not itself."""
    config = '[domain."*.b\u00fccher.example"]\n'
    entry = '[scope]\ndomains = ["{}"]\n'
    scope = plugin(tmp_path, MESSAGE, entry.format("a.b.b\u00fccher.example"), config).scope
    assert scope == Scope(domains=("a.b.xn--bcher-kva.example",))
    found = problem(tmp_path, MESSAGE, entry.format("b\u00fccher.example"), config)
    assert found.rule.startswith("this is no domain of ours")


@pytest.mark.parametrize(
    ("row", "rule", "hint"),
    [
        ('listeners = ["defalt"]', "there is no [listener.defalt]", 'did you mean "default"?'),
        ('networks = ["10.0.0.1/8"]', "this is a network", 'write "10.0.0.0/8"'),
        ('domains = ["example.com"]', "this is no domain of ours", 'did you mean "example.org"?'),
        ('domains = ["a b"]', "this is a domain name", ""),
    ],
)
def test_what_a_scope_names_is_there(tmp_path: Path, row: str, rule: str, hint: str):
    """A slip would be a plugin that is never asked: a silent skip."""
    found = problem(tmp_path, MESSAGE, f"[scope]\n{row}\n")
    assert (found.table, found.hint) == ("[scope]", hint)
    assert found.rule.startswith(rule)


@pytest.mark.parametrize("config", ["[listener", '[domain."a..b"]\n[listener.in]\n'])
def test_what_a_scope_names_is_not_missed_where_it_cannot_be_known(tmp_path: Path, config: str):
    """Causes, not consequences: forkd.toml alone is to repair."""
    entry = '[scope]\nlisteners = ["in"]\ndomains = ["a.example"]\n[grants]\nadd_recipient = ["a.example"]\n'
    found = problem(tmp_path, ADDS.format("*"), entry, config)
    assert Path(found.file).name == "forkd.toml"


def test_where_mail_is_relayed_recipients_have_any_domain(tmp_path: Path):
    """A filter for what goes out to one domain."""
    config = '[networks]\nrelay = ["10.0.0.0/8"]\n[queue]\nrelay_transport = "local"\n'
    assert plugin(tmp_path, MESSAGE, '[scope]\ndomains = ["else.example"]\n', config).scope.domains


def test_a_plugin_that_is_never_asked_about_recipients_has_no_domains(tmp_path: Path):
    """plugins.md: with domains it is asked at rcpt, data and message, and at no earlier hook."""
    found = problem(tmp_path, 'hooks = ["connect", "mail"]\n', '[scope]\ndomains = ["example.org"]\n')
    assert (found.key, "it would never be asked" in found.rule) == ("domains", True)


def test_hooks_that_a_scope_leaves_out_are_said(tmp_path: Path):
    """Some of its work is not done then."""
    entry = '[scope]\ndomains = ["example.org"]\n[grants]\nauth = true\n'
    said = "\n".join(loaded(tmp_path, ALL_HOOKS, entry).notes)
    assert "it is not asked at connect, auth" in said
    assert "it is not asked" not in "\n".join(loaded(tmp_path, MESSAGE, entry).notes)


# --- limits -----------------------------------------------------------------------------------------


def test_a_sandbox_for_each_call_serves_no_second_session(tmp_path: Path):
    """The two trades pull in opposite directions."""
    found = problem(tmp_path, MESSAGE, '[limits]\nfresh = "call"\nreuse = 2\n')
    assert (found.table, found.key) == ("[limits]", "reuse")


def test_the_authors_wish_for_fresh_sandboxes_is_stricter_and_holds(tmp_path: Path):
    """A suggestion to reuse is looser, and does nothing."""
    assert plugin(tmp_path, MESSAGE + '[limits]\nfresh = "call"\n', "").limits.fresh == "call"
    result = loaded(tmp_path, MESSAGE + "[limits]\nreuse = 100\n", "")
    assert result.plugins[0].limits.reuse == 1
    assert any("suggests reuse = 100" in note for note in result.notes)


def test_an_authors_wish_that_contradicts_the_admins_trade_is_said(tmp_path: Path):
    """The admin's key is the one blamed."""
    found = problem(tmp_path, MESSAGE + '[limits]\nfresh = "call"\n', "[limits]\nreuse = 2\n")
    assert (Path(found.file).name, found.key) == ("10-mine.toml", "reuse")


@pytest.mark.parametrize(
    ("rows", "key"),
    [
        ('timeout = "3m"', "timeout"),
        ('message_timeout = "3m"', "message_timeout"),
        ('session_time = "30s"', "session_time"),
    ],
)
def test_one_call_is_not_longer_than_all_of_them(tmp_path: Path, rows: str, key: str):
    """The longer one would never do anything; the admin's key is the one blamed."""
    found = problem(tmp_path, MESSAGE, f"[limits]\n{rows}\n")
    assert (found.key, "is longer than session_time" in found.rule) == (key, True)


def test_a_budget_below_a_plugins_own_time_is_said(tmp_path: Path):
    """Legal: it is the sum that counts for the client."""
    config = '[sandbox]\nmessage_budget = "30s"\n'
    said = "\n".join(loaded(tmp_path, MESSAGE, "", config).notes)
    assert "message_budget = 30s is over before the plugin mine could be late" in said
    assert "is over before" not in "\n".join(loaded(tmp_path, 'hooks = ["rcpt"]\n', "", config).notes)
    assert "is over before" not in "\n".join(loaded(tmp_path, MESSAGE, "").notes)


# --- secrets ----------------------------------------------------------------------------------------

SECRET = 'hooks = ["mail"]\n[settings.token]\ntype = "string"\nsecret = true\n'


def test_a_secret_reaches_the_plugin_and_no_screen(tmp_path: Path):
    """`config show --effective` is pasted into tickets."""
    result = loaded(tmp_path, SECRET, '[settings]\ntoken = "hunter2"\n')
    assert result.plugins[0].members[0].settings == {"token": "hunter2"}
    assert "hunter2" not in as_toml(result)
    assert as_data(result)["plugin"]["mine"]["settings"] == {"token": HIDDEN}


def test_a_secret_of_the_wrong_type_is_not_shown_either(tmp_path: Path):
    """Nor are errors in logs of CI."""
    found = problem(tmp_path, SECRET, "[settings]\ntoken = 47110815\n")
    assert (found.line, found.key, found.rule) == (3, "token", "this does not fit the type string")
    assert "47110815" not in repr(found)
