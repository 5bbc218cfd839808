"""forkd plugin check, list, show, diff."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from forkd.config.stock import stock_plugins
from forkd.exits import Exit
from forkd.master.plugin_files import digest
from tests.cli.conftest import ROOT, Forkd
from tests.support.config_files import DOMAIN, write

MANIFEST = 'name = "mine"\nversion = "1.2"\napi = 1\ndescription = "Looks"\nhooks = ["rcpt", "message"]\n'
CODE = """
from forkd.sdk import Plugin, deny

def plugin_init(settings):
    def rcpt(session, recipient):
        return deny("5.7.1", "no")
    def message(session, envelope, message):
        return None
    return Plugin(rcpt=rcpt, message=message)
"""
WANTS = """
[wants.powers]
quarantine = "suspicious mail is kept"
[wants.reads]
body = "it looks into it"
[wants.capabilities]
dns = { suffixes = ["zen.example"], reason = "asks a list" }
"""
LOOKS_UP = "may look up names below zen.example: the name it asks can carry data out"
GRANTS = '[grants]\nquarantine = true\nreads = ["body"]\ndns = ["example"]\n'


def make(folder: Path, manifest: str = "", code: str = CODE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plugin.toml").write_text(MANIFEST + manifest)
    (folder / "mine.py").write_text(code)
    return folder


def configure(folder: Path, entry: str = "", manifest: str = "") -> None:
    write(folder, forkd_toml=DOMAIN, **{"plugins.d__10-mine_toml": f'plugin = "../mine"\n{entry}'})
    make(folder / "mine", manifest)


def outcome(done: subprocess.CompletedProcess[str]) -> tuple[int, list[str]]:
    """Status, and what is wrong."""
    return done.returncode, [line for line in done.stdout.splitlines() if line.startswith("problem: ")]


# --- check --------------------------------------------------------------------------------------------


def test_check_is_content_with_a_right_plugin(forkd: Forkd, tmp_path: Path):
    """It was loaded in a real sandbox, with all its wants granted."""
    make(tmp_path / "mine")
    done = forkd("plugin", "check", "mine")
    assert (done.returncode, done.stdout) == (0, "mine: fine; mine 1.2 (rcpt, message)\n")


@pytest.mark.parametrize("name", ["block_senders", "mark", "greylist", "auth_results"])
def test_check_is_content_with_stock_plugins(forkd: Forkd, name: str):
    """Named as the admin names them."""
    assert outcome(forkd("plugin", "check", name)) == (0, [])


def test_check_refuses_a_wrong_manifest(forkd: Forkd, tmp_path: Path):
    """As forkd would: line, rule, help."""
    make(tmp_path / "mine", "[wants.powers]\ndiscrad = 'r'\n")
    done = forkd("plugin", "check", "./mine")
    assert done.returncode == Exit.CONFIG
    assert "mine/plugin.toml:7: [wants.powers] discrad: no such key" in done.stderr
    assert 'did you mean "discard"?' in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("message=message", "", "plugin.toml declares hook message, which plugin_init does not give"),
        ("return Plugin(", "raise LookupError('lost')\n    return Plugin(", "LookupError: lost"),
        ("return deny(", "return dney(", ""),
        (
            "def rcpt(session, recipient)",
            "def rcpt(session)",
            "hook rcpt is called as rcpt(session, recipient)",
        ),
        ("from forkd.sdk import", "import msgspec\nfrom forkd.sdk import", "No module named 'msgspec'"),
        ("    def rcpt", "  def rcpt", "problem: syntax: mine/mine.py:7: unindent"),
    ],
)
def test_check_loads_the_code_behind_walls(forkd: Forkd, tmp_path: Path, old: str, new: str, said: str):
    """Hooks against code; whatever it raises is its author's to see."""
    make(tmp_path / "mine", code=CODE.replace(old, new))
    status, problems = outcome(done := forkd("plugin", "check", "mine"))
    if not said:
        assert status == 0  # only a call would show it
        return
    assert (status, problems != []) == (Exit.FAILED, True)
    assert said in done.stdout


def test_check_runs_nothing_of_the_plugin_itself(forkd: Forkd, tmp_path: Path):
    """Its code may do whatever it likes: files, network, processes are behind the walls."""
    attack = f"import os\nopen({str(tmp_path / 'broken')!r}, 'w')\n"
    make(tmp_path / "mine", code=attack + CODE)
    status, _ = outcome(forkd("plugin", "check", "mine"))
    assert status == Exit.FAILED
    assert not (tmp_path / "broken").exists()


@pytest.mark.parametrize(
    ("code", "manifest", "told"),
    [
        (
            "from forkd.sdk import quarantine as q\ndef f(session):\n    return q('x')\n",
            "",
            ("quarantine()", "quarantine"),
        ),
        (
            "from forkd import sdk\ndef f(session):\n    return sdk.add_header('X-B', '1')\n",
            '[wants.powers]\nedit_headers = { names = ["X-A"], reason = "r" }\n',
            ("add_header('X-B')", "edit_headers of 'X-B'"),
        ),
        ("\ndef f(session):\n    return session.dns.a('x')\n", "", ("session.dns", "dns")),
        (
            "\ndef f(session):\n    return session.connect('home')\n",
            '[wants.capabilities]\nconnect = { targets = ["clamd"], reason = "r" }\n',
            ("session.connect('home')", "connect of 'home'"),
        ),
    ],
)
def test_check_compares_code_and_wants(
    forkd: Forkd, tmp_path: Path, code: str, manifest: str, told: tuple[str, str]
):
    """Before the first mail does."""
    call, want = told
    make(tmp_path / "mine", manifest, code + CODE)
    table = "capabilities" if "session." in call else "powers"
    said = f"mine.py:3: {call} will be refused: [wants.{table}] in plugin.toml does not want {want}"
    assert outcome(forkd("plugin", "check", "mine")) == (Exit.FAILED, [f"problem: code: {said}"])


def test_check_says_which_wants_nothing_needs(forkd: Forkd, tmp_path: Path):
    """Less to grant is easier to grant."""
    make(tmp_path / "mine", '[wants.powers]\ndiscard = "r"\n')
    done = forkd("plugin", "check", "mine")
    assert done.returncode == 0
    assert "plugin.toml wants discard, and the code shows no use of it" in done.stderr


def test_check_takes_settings_that_must_be_given(forkd: Forkd, tmp_path: Path):
    """Without them the code is not run, and that is said."""
    code = CODE.replace("def plugin_init(settings):", "def plugin_init(settings):\n    1 / settings['n']\n")
    make(tmp_path / "mine", '[settings.n]\ntype = "integer"\n', code)
    assert "note: settings: it was not loaded: --settings n=…" in forkd("plugin", "check", "mine").stderr
    assert forkd("plugin", "check", "mine", "--settings", "n=1").returncode == 0
    done = forkd("plugin", "check", "mine", "--settings", "n=0")
    assert (done.returncode, "ZeroDivisionError" in done.stdout) == (Exit.FAILED, True)


def test_check_looks_at_who_may_write(forkd: Forkd, tmp_path: Path):
    """forkd would not start it either."""
    (make(tmp_path / "mine") / "mine.py").chmod(0o666)
    problem = "problem: files: everybody may write mine/mine.py: chmod -R go-w mine"
    assert outcome(forkd("plugin", "check", "mine")) == (Exit.FAILED, [problem])


def test_check_speaks_json(forkd: Forkd, tmp_path: Path):
    """For CI."""
    folder = make(
        tmp_path / "mine", code=CODE.replace("return Plugin(", "raise ValueError('no')\n    return Plugin(")
    )
    done = forkd("plugin", "check", "--json", "mine")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["ok"], answer["sha256"]) == (0, True, digest(folder))
    assert answer["found"] == [
        {
            "level": "note",
            "about": "settings",
            "text": "plugin_init refuses its defaults: no (give it others by --settings)",
        }
    ]


# --- show ---------------------------------------------------------------------------------------------


def test_show_says_what_was_granted_in_plain_words(forkd: Forkd, tmp_path: Path):
    """Powers first, each with its author's reason; then what holds for it, and where that comes from."""
    entry = f'on_failure = "defer"\n{GRANTS}[limits]\ncpu = "1s"\n'
    configure(tmp_path, entry, WANTS + '[limits]\nmemory = "64MiB"\n')
    done = forkd("plugin", "show", "mine", "--config", "forkd.toml")
    assert done.returncode == 0
    rows = done.stdout.splitlines()
    assert rows[:3] == [
        "mine 1.2: Looks",
        f"  mine  sha256 {digest(tmp_path / 'mine')}",
        "  switched on by plugins.d/10-mine.toml",
    ]
    assert [row for row in rows if row.startswith("  - ")] == [
        "  - may refuse mail, put it off, and end the session (as every plugin may)",
        '  - may hold mail in quarantine (its reason: "suspicious mail is kept")',
        f'  - {LOOKS_UP} (its reason: "asks a list")',
        '  - reads the body of messages (its reason: "it looks into it")',
    ]
    assert "  together: body can leave this machine by the names it looks up" in rows
    assert (
        "if it fails  the command gets 451 (before the greeting: 421, and the end); the client may try again"
        in rows
    )
    words = [row.split(maxsplit=2) for row in rows]
    assert ["cpu", "1s", "its entry"] in words
    assert ["memory", "64MiB", "suggested by its author"] in words
    assert ["timeout", "5s", "default"] in words


def test_show_marks_grants_beyond_what_is_wanted(forkd: Forkd, tmp_path: Path):
    """Beside what it may do, which they do not widen."""
    configure(tmp_path, GRANTS.replace('"example"', '"any"') + 'accept = true\nfiles = ["/"]\n', WANTS)
    done = forkd("plugin", "show", "mine", "--config", "forkd.toml")
    rows = done.stdout.splitlines()
    assert [row.partition("toml: ")[2] for row in rows if row.startswith("  note: ")] == [
        "grants accept, which mine does not want",
        "grants dns any, more than mine wants: it gets zen.example",
        "grants files, which mine does not want",
    ]
    assert not [row for row in rows if row.startswith("  - may read")]
    said = json.loads(forkd("plugin", "show", "mine", "--config", "forkd.toml", "--json").stdout)
    assert len(said["beyond"]) == 3


def test_show_of_what_is_off_says_what_it_would_want(forkd: Forkd, tmp_path: Path):
    """By the path of its folder, or the name of one that comes with forkd."""
    make(tmp_path / "mine", WANTS)
    done = forkd("plugin", "show", "mine")
    assert "Switched on, it would want this to be granted:" in done.stdout
    assert '  - may hold mail in quarantine (its reason: "suspicious mail is kept")' in done.stdout
    assert "the header fields X-Filtered (with header = True)" in forkd("plugin", "show", "filter").stdout


def test_show_of_a_group_is_the_union(forkd: Forkd, tmp_path: Path):
    """plugins.md: `plugin show` prints the union."""
    configure(tmp_path, 'group = "checks"\n' + GRANTS, WANTS)
    write(tmp_path, **{"plugins.d__20-mark_toml": 'plugin = "mark"\ngroup = "checks"\n[grants]\n'
                       'edit_headers = ["X-Forkd-Plugin"]\n'})  # fmt: skip
    texts = {forkd("plugin", "show", name, "-c", "forkd.toml").stdout for name in ("checks", "mine", "mark")}
    (text,) = texts
    assert "One sandbox for the group checks (mine, mark): each may do what any of them may." in text
    assert "may hold mail in quarantine" in text
    assert "may add, change and delete the header fields X-Forkd-Plugin" in text


def test_show_speaks_json(forkd: Forkd, tmp_path: Path):
    """The same, for programs."""
    configure(tmp_path, 'mode = "shadow"\n' + GRANTS, WANTS)
    answer = json.loads(forkd("plugin", "show", "mine", "--json", "-c", "forkd.toml").stdout)
    assert [one["name"] for one in answer["may"]] == ["quarantine", "dns", "body"]
    assert answer["members"][0]["sha256"] == digest(tmp_path / "mine")
    assert answer["limits"]["sandboxes"] == {"value": "64 per CPU", "from": "default"}
    assert (answer["mode"], "never obeyed" in answer["on_failure"]["means"]) == ("shadow", True)
    assert answer["running"] is None


def test_show_of_nothing_says_what_there_is(forkd: Forkd):
    """A typing error is the usual case."""
    done = forkd("plugin", "show", "grylist")
    assert done.returncode == Exit.FAILED
    assert "there is no plugin grylist" in done.stderr
    assert "greylist" in done.stderr


def test_texts_of_strangers_cannot_steer_the_terminal(forkd: Forkd, tmp_path: Path):
    """A manifest is read before anybody trusts it."""
    make(tmp_path / "mine", '[wants.powers]\ndiscard = "\\u001b[2J"\n')
    done = forkd("plugin", "show", "mine")
    assert "\x1b" not in done.stdout
    assert "\\x1b[2J" in done.stdout
    assert "\x1b" not in forkd("plugin", "diff", "mark", "mine").stdout


# --- list ---------------------------------------------------------------------------------------------


def test_list_has_what_is_on_in_its_order_then_the_rest(forkd: Forkd, tmp_path: Path):
    """Stock plugins too, and entries that are switched off."""
    configure(tmp_path)
    mark = 'plugin = "mark"\n[grants]\nedit_headers = ["X-Forkd-Plugin"]\n'
    off = 'plugin = "headers"\nenabled = false\n'
    write(tmp_path, **{"plugins.d__05-mark_toml": mark, "plugins.d__50-headers_toml": off})
    rows = json.loads(forkd("plugin", "list", "--json", "-c", "forkd.toml").stdout)
    assert [(row["plugin"], row["from"], row["order"]) for row in rows if row["on"]] == [
        ("mark", "stock", 5),
        ("mine", "folder", 10),
    ]
    rest = {row["plugin"]: row["entry"] for row in rows if not row["on"]}
    assert set(rest) == set(stock_plugins()) - {"mark"}
    assert rest["headers"] == "plugins.d/50-headers.toml"
    done = forkd("plugin", "list", "-c", "forkd.toml")
    assert done.stdout.splitlines()[0].split() == [
        *("plugin", "version", "from", "on", "order", "mode", "group", "entry")
    ]
    assert "no daemon of this configuration runs" in done.stderr


def packaged(folder: Path, name: str, manifest: str) -> dict[str, str]:
    """A plugin installed as a package for the Python that runs forkd: the environment that has it."""
    site = folder / "site-packages"
    metadata = site / f"{name}-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[forkd.plugins]\n{name} = {name}\n")
    make(site / name)
    (site / name / "mine.py").rename(site / name / f"{name}.py")
    (site / name / "plugin.toml").write_text(manifest)
    return {"PYTHONPATH": f"{site}:{ROOT}"}


@pytest.mark.parametrize("manifest", ["api = 7\n", "api = [\n", "\xff"], ids=["wrong", "no TOML", "no UTF-8"])
def test_a_broken_package_that_is_off_stands_in_no_ones_way(forkd: Forkd, tmp_path: Path, manifest: str):
    """The list has it with what is wrong; other plugins are shown; asked for itself it is refused."""
    configure(tmp_path)
    environment = packaged(tmp_path, "broken", manifest)
    (tmp_path / "site-packages/broken/plugin.toml").write_bytes(manifest.encode("latin-1"))
    done = forkd("plugin", "list", "--json", "-c", "forkd.toml", **environment)
    assert done.returncode == 0
    (row,) = (row for row in json.loads(done.stdout) if row["plugin"] == "broken")
    assert (row["from"], row["on"]) == ("package", False)
    assert "broken/plugin.toml" in row["unusable"]
    assert all(not row["unusable"] for row in json.loads(done.stdout) if row["plugin"] != "broken")
    table = forkd("plugin", "list", "-c", "forkd.toml", **environment).stdout.splitlines()
    assert [line.split()[1:3] for line in table if line.startswith("broken")] == [["package", "unusable"]]
    assert forkd("plugin", "show", "greylist", "-c", "forkd.toml", **environment).returncode == 0
    refused = forkd("plugin", "show", "broken", "-c", "forkd.toml", **environment)
    assert refused.returncode == Exit.CONFIG
    assert "broken/plugin.toml" in refused.stderr


def test_list_has_the_entry_of_a_package_that_is_switched_off(forkd: Forkd, tmp_path: Path):
    """As with a folder."""
    configure(tmp_path)
    write(tmp_path, **{"plugins.d__50-other_toml": 'package = "other"\nenabled = false\n'})
    environment = packaged(tmp_path, "other", MANIFEST.replace("mine", "other"))
    done = forkd("plugin", "list", "--json", "-c", "forkd.toml", **environment)
    (row,) = (row for row in json.loads(done.stdout) if row["plugin"] == "other")
    assert (row["from"], row["on"], row["unusable"]) == ("package", False, "")
    assert row["entry"] == "plugins.d/50-other.toml"


# --- diff ---------------------------------------------------------------------------------------------


def test_diff_says_what_is_newly_wanted(forkd: Forkd, tmp_path: Path):
    """Exit status 1: somebody must consent."""
    make(tmp_path / "old")
    make(tmp_path / "new", WANTS)
    done = forkd("plugin", "diff", "old", "new")
    assert done.returncode == Exit.FAILED
    assert done.stdout == (
        "mine 1.2 -> mine 1.2\n"
        "\n"
        "it newly:\n"
        '  + may hold mail in quarantine (its reason: "suspicious mail is kept")\n'
        "  + may look up names below zen.example: the name it asks can carry data out "
        '(its reason: "asks a list")\n'
        '  + reads the body of messages (its reason: "it looks into it")\n'
    )
    back = forkd("plugin", "diff", "new", "old")
    assert back.returncode == 0
    assert "  - may hold mail in quarantine\n" in back.stdout
    assert "It wants nothing that it did not want before.\n" in back.stdout


def test_diff_takes_manifests_alone_and_speaks_json(forkd: Forkd, tmp_path: Path):
    """As they come out of a repository, without the code."""
    (tmp_path / "old.toml").write_text(MANIFEST)
    (tmp_path / "new.toml").write_text(MANIFEST + WANTS)
    done = forkd("plugin", "diff", "--json", "old.toml", "new.toml")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["wants_more"]) == (Exit.FAILED, True)
    assert [(one["kind"], one["name"]) for one in answer["wants"]] == [
        ("power", "quarantine"),
        ("capability", "dns"),
        ("reads", "body"),
    ]


def test_diff_of_what_is_no_plugin_is_a_usage_error(forkd: Forkd):
    """And says what was looked for."""
    done = forkd("plugin", "diff", "mark", "nothing")
    assert (done.returncode, "nothing/plugin.toml" in done.stderr) == (Exit.USAGE, True)
