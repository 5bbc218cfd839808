"""qmail's control files: what they say, what is wrong with them, and how they join forkd.toml."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from forkd.config.load import LoadedConfig, load
from forkd.config.problems import ConfigError, Problem, Problems
from forkd.config.qmail import Said, read_control
from forkd.config.qmail_known import INSTEAD, UNKNOWN, instead
from forkd.config.schema import Domain
from forkd.config.stock import ENTRIES
from tests.support.cdb import cdb

Files = dict[str, str | bytes]
LEAST: Files = {"me": "mx.example.org\n", "rcpthosts": "example.org\n"}
QUEUE = '[transport.local]\nkind = "qmail-queue"\nargv = ["/bin/true"]\n'


def control(folder: Path, files: Files) -> Path:
    """A control folder with these files, and with those that every one has."""
    (folder / "control").mkdir(exist_ok=True)
    for name, content in {**LEAST, **files}.items():
        (folder / "control" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "control"


def said(folder: Path, files: Files) -> Said:
    """What it says; there is nothing wrong with it."""
    problems = Problems()
    found = read_control(control(folder, files), problems)
    problems.raise_if_any()
    return found


def settings(folder: Path, files: Files) -> dict[str, Any]:
    """Its settings, but for the name that LEAST gives."""
    found = said(folder, files).settings
    return {f"{table}.{key}": setting.value for (table, key), setting in found.items() if key != "hostname"}


def wrong(folder: Path, files: Files) -> list[Problem]:
    problems = Problems()
    read_control(control(folder, files), problems)
    try:
        problems.raise_if_any()
    except ConfigError as error:
        return list(error.problems)
    return []


def wrong_in(folder: Path) -> list[Problem]:
    problems = Problems()
    read_control(folder, problems)
    with pytest.raises(ConfigError) as error:
        problems.raise_if_any()
    return list(error.value.problems)


def joined(folder: Path, toml: str, files: Files) -> LoadedConfig:
    """A configuration of both."""
    control(folder, files)
    path = folder / "forkd.toml"
    path.write_text(toml if "qmail_control" in toml else f'[server]\nqmail_control = "control"\n{toml}')
    return load(path)


# --- what each file says --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"databytes": "10000000\n"}, {"limits.message_size": 10_000_000}),
        ({"databytes": "0\n"}, {"limits.message_size": 1 << 40}),
        ({"maxrecipients": "50"}, {"limits.recipients": 50}),
        ({"maxrecipients": "0\n"}, {}),
        ({"maxhops": "30 \t\n"}, {"limits.max_hops": 30}),
        ({"maxhops": "-1\n"}, {}),
        ({"tarpitcount": "20\n"}, {"limits.tarpit_count": 20}),
        ({"tarpitdelay": "9\n"}, {}),
        (
            {"tarpitcount": "20\r\n", "tarpitdelay": "9\r\n"},
            {"limits.tarpit_count": 20, "limits.tarpit_delay": 9.0},
        ),
        (
            {"tarpitcount": "1", "tarpitdelay": "900"},
            {"limits.tarpit_count": 1, "limits.tarpit_delay": 240.0},
        ),
        ({"timeoutsmtpd": "60\n"}, {"timeouts.command": 60.0, "timeouts.data_block": 60.0}),
        (
            {"timeoutsmtpd": "1200\n"},
            {"timeouts.command": 1200.0, "timeouts.data_block": 1200.0, "timeouts.data_total": 1200.0},
        ),
        ({"smtpgreeting": "mx.example.org\n"}, {"server.greeting": "ESMTP"}),
        ({"smtpgreeting": "mx.example.org hello ESMTP you\n"}, {"server.greeting": "hello ESMTP you"}),
        (
            {"smtpgreeting": "# text\nmx.example.org  hello \n\nno spam\n"},
            {"server.greeting": "hello ESMTP\nno spam"},
        ),
        ({"smtpgreeting": "Welcome to us!\n"}, {"server.greeting": "Welcome to us! ESMTP"}),
        ({"smtpgreeting": "\n"}, {}),
    ],
    ids=repr,
)
def test_values(tmp_path: Path, files: Files, expected: dict[str, Any]):
    """qmail-control(5): the first line, white space at its end is not part of it."""
    assert settings(tmp_path, files) == expected


def test_the_name_is_the_first_word_of_the_greeting(tmp_path: Path):
    """qmail-smtpd(8): it is what clients see; me stands for all that is not there."""
    assert said(tmp_path, {}).settings["server", "hostname"].value == "mx.example.org"
    found = said(tmp_path, {"smtpgreeting": "mail.example.org ESMTP\n"})
    assert found.settings["server", "hostname"].value == "mail.example.org"
    assert any(
        "smtpgreeting begins with mail.example.org, me is mx.example.org" in note for note in found.notes
    )


@pytest.mark.parametrize(
    ("line", "network"),
    [
        ("192.0.2.7:", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("192.168.1.:", "192.168.1.0/24"),
        ("192.168.", "192.168.0.0/16"),
        ("127.:", "127.0.0.0/8"),
        ("2001:db8::1:", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_relayclients(tmp_path: Path, line: str, network: str):
    """qmail-smtpd(8): an address, or its beginning up to a dot; a colon behind it."""
    assert list(said(tmp_path, {"relayclients": f"# ours\n{line}\n"}).relay) == [network]


def test_rcpthosts_is_read_as_qmail_reads_it(tmp_path: Path):
    """Comments, blank lines, white space at the end, case, line ends of Windows, no line end at the end."""
    text = (
        b"\xef\xbb\xbf# ours\r\n\r\nExample.ORG \t\r\n.Sub.example\n#old.example\n"
        b"b\xc3\xbccher.example\n[192.0.2.1]\nlast.example"
    )
    assert said(tmp_path, {"rcpthosts": text}).domains == dict.fromkeys(
        ["example.org", "*.sub.example", "xn--bcher-kva.example", "[192.0.2.1]", "last.example"], "rcpthosts"
    )


def test_morercpthosts_is_read_from_its_cdb(tmp_path: Path):
    """qmail-smtpd reads morercpthosts.cdb only; where that was forgotten, the text is meant."""
    both = {"morercpthosts": "text.example\n", "morercpthosts.cdb": cdb("more.example", ".wild.example")}
    found = said(tmp_path, both)
    assert list(found.domains) == ["example.org", "more.example", "*.wild.example"]
    (tmp_path / "control" / "morercpthosts.cdb").unlink()
    found = said(tmp_path, {})
    assert list(found.domains) == ["example.org", "text.example"]
    assert any("morercpthosts is not compiled" in note for note in found.notes)


def test_without_rcpthosts_nobody_relays(tmp_path: Path):
    """qmail-smtpd takes mail for everything then: that is an open relay, and not imitated."""
    files: Files = {"locals": "example.org\nexample.net\n"}
    control(tmp_path, files)
    (tmp_path / "control" / "rcpthosts").unlink()
    problems = Problems()
    found = read_control(tmp_path / "control", problems)
    assert list(found.domains) == ["example.org", "example.net"]
    (note,) = [note for note in found.notes if "would take mail for every domain" in note]
    assert note.endswith("for what locals names")


def test_without_rcpthosts_virtual_domains_are_named_as_left_out(tmp_path: Path):
    """They are delivered here, and nothing says that anybody should be able to write to them."""
    control(tmp_path, {"locals": "example.org\n", "virtualdomains": "v.example:v\nw.example:w\n:all\n"})
    (tmp_path / "control" / "rcpthosts").unlink()
    found = read_control(tmp_path / "control", Problems())
    assert list(found.domains) == ["example.org"]
    assert any("and not for v.example, w.example, all others of virtualdomains" in n for n in found.notes)


def test_locals_and_virtualdomains_say_what_is_delivered_here(tmp_path: Path):
    """What is in rcpthosts alone goes on to another host (qmail as a secondary MX)."""
    files: Files = {
        "rcpthosts": "a.example\nb.example\nx.c.example\n.c.example\nd.example\ne.example\n.f.example\n",
        "locals": "A.example\nonlyhere.example\n",
        "virtualdomains": "b.example:bob\n.c.example:carol\nu@d.example:dan\ne.example:\n",
    }
    found = said(tmp_path, files)
    assert found.elsewhere == {"d.example", "e.example", "*.f.example"}
    assert any(note.startswith("onlyhere.example is in locals and not in rcpthosts") for note in found.notes)
    assert said(tmp_path, {**files, "virtualdomains": ":all\n"}).elsewhere == set()


def test_lists_are_found_where_something_is_in_them(tmp_path: Path):
    """badmailfrom and the like, their patterns, their .cdb; with qregex the patterns are not read."""
    files: Files = {
        "badmailfrom": "# nothing\n",
        "badmailpatterns": "*spam*\n",
        "badrcptto.cdb": cdb("@old.example"),
        "badrcptto": "a@b.example\n",
        "goodrcptto": "",
    }
    found = said(tmp_path, files)
    assert {setting: list(files) for setting, files in found.lists.items()} == {
        "sender_lists": ["badmailpatterns"],
        "recipient_lists": ["badrcptto.cdb", "badrcptto"],
    }
    found = said(tmp_path, {"qregex": "1\n"})
    assert found.regex
    assert list(found.lists) == ["recipient_lists"]


# --- what is wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "line", "rule", "hint"),
    [
        ({"databytes": "10 MB\n"}, 1, "a whole number", "write 10"),
        ({"databytes": "lots\n"}, 1, "a whole number", ""),
        ({"maxrecipients": "9999999999\n"}, 1, "1000000000 at most", ""),
        ({"timeoutsmtpd": "0\n"}, 1, "1 to 2592000", ""),
        ({"me": "my server\n"}, 1, "this is a host name", ""),
        ({"me": "@mx.example.org\n"}, 1, "this is a host name", "write mx.example.org"),
        ({"rcpthosts": "a.example\n\n*.example.org\n"}, 3, "this is a domain", "write .example.org"),
        ({"rcpthosts": "user@example.org\n"}, 1, "this is a domain", ""),
        ({"rcpthosts": " example.org\n"}, 1, "this is a domain", "write example.org"),
        ({"rcpthosts": "example.org.\n"}, 1, "this is a domain", "write example.org"),
        ({"rcpthosts": b"a.example\nb\xfccher.example\n"}, 2, "not UTF-8", "save the file as UTF-8"),
        ({"rcpthosts": "a.example\r\nexa\x00mple.org\n"}, 2, "control character", ""),
        ({"morercpthosts.cdb": cdb("a b.example")}, 0, "'a b.example': this is a domain", ""),
        ({"morercpthosts.cdb": b"more.example\n"}, 0, "this is no cdb file", "compile it again"),
        ({"morercpthosts.cdb": cdb("more.example")[:-8]}, 0, "end of it is missing", "compile it again"),
        ({"badmailfrom.cdb": b"x"}, 0, "this is no cdb file", "compile it again"),
        ({"badmailfrom": b"a@b.example\n@\xe9.example\n"}, 2, "not UTF-8", "save the file as UTF-8"),
        ({"relayclients": "192.168.1.0/24\n"}, 1, "this is an IP address", "write 192.168.1.:"),
        ({"relayclients": "192.168.1\n"}, 1, "this is an IP address", ""),
        ({"relayclients": "192.0.2.300:\n"}, 1, "this is an IP address", ""),
        ({"relayclients": "client.example:\n"}, 1, "this is an IP address", ""),
        ({"relayclients": "10.:@out.example\n"}, 1, "appends nothing to recipients", "write 10.:"),
        ({"smtpgreeting": "mx.example.org \xa1hola!\n"}, 1, "printable ASCII", ""),
        ({"smtpgreeting": f"mx.example.org {'x' * 300}\n"}, 1, "250 characters at most", ""),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, files: Files, line: int, rule: str, hint: str):
    """File, line, what is wrong, what would be right."""
    (found,) = wrong(tmp_path, files)
    assert (found.file, found.line) == (str(tmp_path / "control" / next(iter(files))), line)
    assert rule in found.rule
    assert found.hint == hint


def test_a_file_full_of_mistakes_is_not_printed_whole(tmp_path: Path):
    """Twenty are enough to see what is wrong."""
    found = wrong(tmp_path, {"rcpthosts": "user@example.org\n" * 1000})
    assert len(found) == 20
    assert found[-1].rule.endswith("further problems of this file are not shown")


def test_a_folder_without_control_files_is_named(tmp_path: Path):
    """The folder around it."""
    control(tmp_path, {})
    problems = Problems()
    read_control(tmp_path, problems)
    with pytest.raises(ConfigError, match=r"neither me nor rcpthosts is there \(did you mean .*control\?\)"):
        problems.raise_if_any()


# --- together with forkd.toml ---------------------------------------------------------------------------


def test_control_files_give_what_the_toml_leaves_out(tmp_path: Path):
    """qmail_control: a whole configuration in one line."""
    files: Files = {
        "databytes": "1000000\n",
        "smtpgreeting": "mx.example.org hello\n",
        "rcpthosts": "a.example\n.b.example\n",
    }
    config = joined(tmp_path, "", files).config
    assert config.server.hostname == "mx.example.org"
    assert config.server.greeting == "hello ESMTP"
    assert config.limits.message_size == 1_000_000
    assert config.domain == {"a.example": Domain(detail=""), "*.b.example": Domain(detail="")}


def test_the_toml_counts_and_the_conflict_is_named(tmp_path: Path):
    """Both key and file, so that one of them can be taken out."""
    toml = '[limits]\nmessage_size = "2MiB"\nrecipients = 100\n[timeouts]\ndata_total = "15m"\n'
    files: Files = {"databytes": "1000000\n", "maxrecipients": "100\n", "timeoutsmtpd": "1200\n"}
    loaded = joined(tmp_path, toml, files)
    assert loaded.config.limits.message_size == 2 << 20
    assert loaded.config.timeouts.data_block == loaded.config.timeouts.data_total == 900
    path = tmp_path / "control"
    assert (
        f'limits.message_size = "2MiB" counts, and not {path / "databytes"}, which says "1000000B"'
        in loaded.notes
    )
    assert not any("maxrecipients" in note for note in loaded.notes)


def test_domains_are_taken_together(tmp_path: Path):
    """A table says more about a domain of rcpthosts, or adds one, and that is said."""
    toml = '[domain."Example.org"]\nmailboxes = ["a"]\n[domain."new.example"]\n'
    loaded = joined(tmp_path, toml, {"rcpthosts": "example.org\nold.example\n"})
    assert list(loaded.config.domain) == ["example.org", "new.example", "old.example"]
    assert loaded.config.domain["example.org"].mailboxes == ("a",)
    assert any(note.startswith("new.example: taken, though") for note in loaded.notes)


def test_who_may_relay_needs_a_way_out(tmp_path: Path):
    """qmail's queue is one; without it the line of relayclients is named."""
    files: Files = {"relayclients": "# ours\n192.168.1.:\n"}
    config = joined(tmp_path, QUEUE, files).config
    assert (config.networks.relay, config.queue.relay_transport) == (("192.168.1.0/24",), "local")
    with pytest.raises(
        ConfigError, match=r"relayclients:2: these clients may relay, but queue\.relay_transport"
    ):
        joined(tmp_path, "", files)
    out = '[queue]\nrelay_transport = "out"\n[transport.out]\nkind = "discard"\n'
    config = joined(tmp_path, out, {**files, "locals": "mx.example.org\n"}).config
    assert config.domain["example.org"].transport == "out"
    loaded = joined(tmp_path, '[networks]\nrelay = ["192.0.2.1"]\n' + out, files)
    assert loaded.config.networks.relay == ("192.0.2.1",)
    assert any(note.startswith("networks.relay counts") for note in loaded.notes)


def test_lists_are_a_plugin(tmp_path: Path):
    """badmailfrom is an opinion on mail: the plugin qmail_lists has it, first of all, granted its files."""
    files: Files = {"badmailfrom": "@spam.example\n", "goodrcptto": "a@example.org\n"}
    (plugin,) = joined(tmp_path, "", files).plugins
    path = tmp_path / "control"
    assert (plugin.name, plugin.order) == ("qmail_lists", 5)
    assert plugin.files == (path / "badmailfrom", path / "goodrcptto")
    assert plugin.settings["sender_lists"] == [str(path / "badmailfrom")]


def test_an_entry_of_the_admin_counts_for_the_lists(tmp_path: Path):
    """Also one that switches them off, as the sample does that came with the others: then it is said."""
    entry = tmp_path / "plugins.d" / "05-qmail_lists.toml"
    shutil.copytree(ENTRIES, entry.parent)
    loaded = joined(tmp_path, "", {"badmailfrom": "@spam.example\n", "goodrcptto": "a@example.org\n"})
    assert "qmail_lists" not in [plugin.name for plugin in loaded.plugins]
    files = ", ".join(str(tmp_path / "control" / name) for name in ("badmailfrom", "goodrcptto"))
    (note,) = [note for note in loaded.notes if str(entry) in note]
    assert note.startswith(
        f"{entry} counts, and has enabled = false: nobody is refused by {files}; remove it"
    )
    # Nobody reads them then: what is wrong in them stops nothing.
    assert joined(tmp_path, "", {"badmailfrom": "nonsense\n"}).plugins == loaded.plugins


def test_lists_that_the_admins_entry_does_not_name_are_said(tmp_path: Path):
    """Those it names are not; paths start at the entry."""
    (tmp_path / "plugins.d").mkdir()
    entry = tmp_path / "plugins.d" / "05-qmail_lists.toml"
    path = tmp_path / "control" / "badmailfrom"
    files: Files = {"badmailfrom": "@spam.example\n", "badrcptto": "a@example.org\n"}
    named = 'sender_lists = ["../control/badmailfrom"]\n'
    entry.write_text(f'plugin = "qmail_lists"\n[settings]\n{named}[grants]\nfiles = ["{path}"]\n')
    loaded = joined(tmp_path, "", files)
    assert [plugin.name for plugin in loaded.plugins] == ["qmail_lists"]
    unread = tmp_path / "control" / "badrcptto"
    assert f"{entry} counts for the lists, and not {unread}: it does not name them" in loaded.notes
    entry.with_name("06-off.toml").write_text('plugin = "qmail_lists"\nenabled = false\n')
    assert joined(tmp_path, "", files).notes == loaded.notes


@pytest.mark.parametrize(
    ("files", "line", "rule"),
    [
        ({"badmailfrom": "# bulk\n@bulk.example\nbulk.example\n"}, 3, "no @: write @bulk.example"),
        ({"badrcptto": "a b@example.org\n"}, 1, "one address a line"),
        ({"goodrcptto": "!\n", "badrcptto": "a@example.org\n"}, 1, "! and nothing behind it"),
        ({"badmailpatterns": "a@[b\n"}, 1, "[ without its ]"),
        ({"badmailfrom": "a(b\n", "qregex": "1\n"}, 1, "no pattern: "),
        ({"badmailfrom.cdb": cdb("bulk.example")}, 0, "'bulk.example': no @"),
    ],
    ids=["no @", "blank", "nothing", "bracket", "regex", "cdb"],
)
def test_a_line_that_means_nothing_is_found_before_the_start(
    tmp_path: Path, files: Files, line: int, rule: str
):
    """The plugin would refuse to start for it, and forkd with it."""
    with pytest.raises(ConfigError) as error:
        joined(tmp_path, "", files)
    (found,) = error.value.problems
    assert (found.file, found.line) == (str(tmp_path / "control" / next(iter(files))), line)
    assert rule in found.rule


@pytest.mark.parametrize("name", ["badmailfrom", "me", "databytes", "morercpthosts.cdb"])
def test_only_regular_files_are_read(tmp_path: Path, name: str):
    """A FIFO that nobody writes to would keep the start for ever; it is named."""
    control(tmp_path, {})
    (tmp_path / "control" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "control" / name)
    (found,) = wrong(tmp_path, {}) if name != "me" else wrong_in(tmp_path / "control")
    assert (found.file, found.rule) == (str(tmp_path / "control" / name), "this is no regular file")


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ("qmail_control = 'nowhere'", "there is no such folder"),
        ("qmail_control = 'forkd.toml'", "not a folder"),
    ],
)
def test_a_wrong_folder_is_named(tmp_path: Path, row: str, rule: str):
    """With the line of the key."""
    with pytest.raises(ConfigError, match=rf"forkd\.toml:2: \[server\] qmail_control = .*{rule}"):
        joined(tmp_path, f"[server]\n{row}\n", {})


def test_every_file_of_qmail_smtpd_has_a_counterpart_or_a_word(tmp_path: Path):
    """What is not read is named with what to do instead."""
    names = [
        "greetdelay",
        "badhelo",
        "badhelo.cdb",
        "smtproutes",
        "from.envrules",
        "badmailfrom.sql",
        "certs",
    ]
    found = said(tmp_path, dict.fromkeys([*names, "databytes~"], "x\n") | {"locals": "example.org\n"})
    assert sorted(found.others) == sorted([*names, "databytes~"])
    assert [name for name in names if instead(name) == UNKNOWN] == []
    assert instead("databytes~") == UNKNOWN
    assert all(INSTEAD.values())
