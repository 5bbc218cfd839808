"""Contradictions: forkd/config/checks.py, through load()."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.config_files import loaded, problem, problems


def test_relay_networks_need_a_transport(tmp_path: Path):
    """Who may relay, but not how: mail would be accepted that cannot go anywhere."""
    found = problem(tmp_path, '[networks]\nrelay = ["10.0.0.0/8"]\n')
    assert (found.line, found.key) == (2, "relay")
    assert "relay_transport" in found.rule
    assert found.hint == 'set relay_transport in [queue] to "local"'


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ('[domain."example.org"]\ntransport = "locla"', '[domain."example.org"]'),
        ('[networks]\nrelay = ["10.0.0.0/8"]\n[queue]\nrelay_transport = "locla"', "[queue]"),
    ],
)
def test_a_transport_that_is_named_exists(tmp_path: Path, text: str, table: str):
    """The nearest transport is offered."""
    found = problem(tmp_path, text)
    assert (found.table, found.rule) == (table, "there is no [transport.locla]")
    assert found.hint == 'did you mean "local"?'


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("127.0.0.1:25", "127.0.0.1:25"),
        ("0.0.0.0:25", "127.0.0.1:25"),
        ("[::1]:25", "[0:0::1]:25"),
        ("[::]:25", "[::1]:25"),
    ],
)
def test_two_listeners_cannot_have_one_address(tmp_path: Path, one: str, other: str):
    """The second bind would fail at start-up; the message names the first."""
    text = f'[listener.a]\naddress = "{one}"\n[listener.b]\naddress = "{other}"\n'
    found = problem(tmp_path, text)
    assert (found.line, found.rule) == (4, "[listener.a] has this address")


def test_listeners_on_different_addresses_are_fine(tmp_path: Path):
    """Other port, other family, ports the kernel chooses."""
    addresses = ["0.0.0.0:25", "0.0.0.0:26", "[::]:25", "127.0.0.1:0", "127.0.0.1:0"]
    text = "".join(f'[listener.l{at}]\naddress = "{addr}"\n' for at, addr in enumerate(addresses))
    assert not problems(tmp_path, text)


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("localhost:25", 'write "127.0.0.1:25" or "[::1]:25"'),
        ("*:25", 'write "0.0.0.0:25" or "[::]:25"'),
        (":25", 'write "0.0.0.0:25" or "[::]:25"'),
        ("::1:25", 'write "[::1]:25"'),
        ("25", 'write "127.0.0.1:25"'),
        ("127.0.0.1", 'write "127.0.0.1:25"'),
        ("127.0.0.1:70000", ""),
        ("[127.0.0.1]:25", ""),
        ("mail.example.org:25", ""),
    ],
)
def test_an_address_is_an_ip_address_and_a_port(tmp_path: Path, address: str, hint: str):
    """A name may have several addresses or none at boot: it is refused."""
    found = problem(tmp_path, f'[listener.a]\naddress = "{address}"\n')
    assert "HOST:PORT" in found.rule
    assert found.hint == hint


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[timeouts]\ncommand = "1h"', "command"),
        ('[timeouts]\nidle_session = "1m"', "idle_session"),
        ('[timeouts]\ndata_block = "20m"', "data_block"),
        ('[queue]\nretry_first = "5h"', "retry_first"),
        ('[queue]\ngive_up = "1h"', "give_up"),
    ],
)
def test_a_timeout_that_another_one_always_beats_is_an_error(tmp_path: Path, text: str, key: str):
    """It would never do anything; the key that the admin wrote is the one blamed."""
    found = problem(tmp_path, text)
    assert (found.line, found.key) == (2, key)
    assert "is longer than" in found.rule


@pytest.mark.parametrize(
    ("network", "hint"),
    [("10.0.0.1/8", 'write "10.0.0.0/8"'), ("example.org", ""), ("::ffff:10.0.0.0/104", "write 10.0.0.0")],
)
def test_a_network_is_a_network(tmp_path: Path, network: str, hint: str):
    """Host bits are a slip; clients over IPv4 are never seen as mapped addresses."""
    assert problem(tmp_path, f'[networks]\ntrusted = ["{network}"]\n').hint == hint


@pytest.mark.parametrize("everyone", ["0.0.0.0/0", "::/0"])
def test_nobody_opens_a_relay_to_the_world(tmp_path: Path, everyone: str):
    """smtp.md: relay_networks is empty by default; an open relay is never meant."""
    text = f'[networks]\nrelay = ["{everyone}"]\n[queue]\nrelay_transport = "local"\n'
    assert "open relay" in problem(tmp_path, text).rule


def test_a_configuration_that_could_never_take_mail_is_refused(tmp_path: Path):
    """A file without a domain is a file somebody forgot to finish."""
    found = problem(tmp_path, "[domain]\n")
    assert "no mail could ever be accepted" in found.rule


def test_a_domain_in_a_header_without_quotes_is_understood(tmp_path: Path):
    """[domain.example.org] is nested tables to TOML: the likeliest slip of all, so it has its own words."""
    found = problem(tmp_path, "[domain.mail.example.org]\nmailboxes = '*'\n")
    assert (found.line, found.hint) == (1, 'write [domain."mail.example.org"]')


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("example.org.", 'write [domain."example.org"]'),
        ("@example.org", 'write [domain."example.org"]'),
        ("exa mple", ""),
        ("-a.example", ""),
        ("büch er.example", ""),
    ],
)
def test_a_domain_is_a_domain_name(tmp_path: Path, name: str, hint: str):
    """RFC 5321 4.1.2 Domain, RFC 5890 2.3.2 in other scripts."""
    found = problem(tmp_path, f'[domain."{name}"]\n')
    assert ("domain name" in found.rule, found.hint) == (True, hint)


@pytest.mark.parametrize(
    ("first", "second"), [("a.example", "A.Example"), ("bücher.example", "xn--bcher-kva.example")]
)
def test_a_domain_stands_once_however_it_is_written(tmp_path: Path, first: str, second: str):
    """Domains are compared without case (RFC 5321 2.4), and in A-labels (RFC 5890 2.3.2.4)."""
    found = problem(tmp_path, f'[domain."{first}"]\n[domain."{second}"]\n')
    assert (found.line, first in found.rule) == (2, True)


def test_a_domain_may_be_written_as_it_is_read(tmp_path: Path):
    """Everybody who uses the configuration has one form of it."""
    assert list(loaded(tmp_path, '[domain."Bücher.Example"]\n').config.domain) == ["xn--bcher-kva.example"]


@pytest.mark.parametrize(
    ("mailboxes", "hint"),
    [
        ('["bob@a.example"]', 'write "bob"'),
        ('["*"]', 'write "*"'),
        ('["bob", "Bob"]', ""),
        ('["jürgen", "JÜRGEN"]', ""),
        ('[""]', ""),
    ],
)
def test_mailboxes_are_local_parts(tmp_path: Path, mailboxes: str, hint: str):
    """Without the domain, each once, compared without case."""
    assert problem(tmp_path, f'[domain."a.example"]\nmailboxes = {mailboxes}\n').hint == hint


def test_a_maildir_path_has_only_known_fields(tmp_path: Path):
    """A field that nobody fills in would become a folder of that name."""
    found = problem(tmp_path, '[transport.a]\nkind = "maildir"\npath = "mail/{usr}"\n')
    assert found.hint == 'did you mean "user"?'


def test_a_required_layer_is_a_layer(tmp_path: Path):
    """A misspelt wall would be required and never found."""
    found = problem(tmp_path, '[sandbox]\nrequire = ["secomp"]\n')
    assert found.hint == 'did you mean "seccomp"?'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[queue]\ndurability = "none"', "loses accepted mail"),
        ("[limits]\nrecipients = 10", "RFC 5321 4.5.3.1.8"),
        ('[queue]\nrelay_transport = "local"', "no client may relay"),
        ("[sandbox]\nrequire = []", "without these walls"),
    ],
)
def test_what_is_legal_but_surprising_is_a_note(tmp_path: Path, text: str, said: str):
    """queue.md: durability "none" is said at start-up and in status; the like goes for the others."""
    assert any(said in note for note in loaded(tmp_path, text).notes)


def test_the_layers_that_can_be_required_are_those_the_self_test_reports():
    """config may not import the sandbox, so the two lists are held together here."""
    from forkd.config.schema import LAYERS
    from forkd.sandbox.selftest import REPORTED

    assert sorted(LAYERS) == sorted((*REPORTED, "roles"))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('[server]\nhostname = "mail example"', "this is a host name"),
        ('[server]\nqueue_user = "Mail User"', "this is the name of a system user"),
        ('[server]\ngreeting = "caf\u00e9"', "this is printable ASCII"),
        ('[server]\ngreeting = "a\\tb"', "this is printable ASCII"),
        (f'[server]\ngreeting = "a\\n{"b" * 251}"', "250 characters at most"),
        ('[domain."a.example"]\ndetail = "--"', "this is one character"),
        ('[domain."*.example.*"]', "this is a domain name in quotes"),
        ('[domain."*.a.example"]\n[domain."*.A.example"]', "this domain stands as"),
        ('[transport.a]\nkind = "maildir"\npath = ""', "this must not be empty"),
        ('[transport.a]\nkind = "maildir"\npath = "mail/{user"', "the braces do not match"),
    ],
)
def test_a_text_of_a_certain_form_has_it(tmp_path: Path, text: str, rule: str):
    """What the system or the protocol would refuse later, or take for something else."""
    assert rule in problem(tmp_path, text).rule


def test_what_may_cost_mail_is_a_note(tmp_path: Path):
    """A message may fill what is left of the disk."""
    said = "is less than one message"
    assert any(said in note for note in loaded(tmp_path, '[queue]\nmin_free = "1MiB"').notes)
    assert not any(said in note for note in loaded(tmp_path, '[queue]\nmin_free = "1GiB"').notes)


def test_a_machine_without_a_host_name_greets_as_localhost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And it is said, since other servers may refuse it."""
    monkeypatch.setattr("socket.gethostname", lambda: "my machine")
    result = loaded(tmp_path, "")
    assert result.config.server.hostname == "localhost"
    assert any("set server.hostname" in note for note in result.notes)


def test_no_more_workers_run_than_there_may_be(tmp_path: Path):
    """pool.min is of server.workers; where those are one per CPU, as many as there are."""
    found = problem(tmp_path, "[server]\nworkers = 2\n[pool]\nmin = 3\n")
    assert (found.line, found.key, found.value) == (4, "min", "3")
    assert "server.workers (2)" in found.rule
    assert not problems(tmp_path, "[pool]\nmin = 1000\n")
