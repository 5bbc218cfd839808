"""Contradictions about listeners, TLS, names, networks and rates: forkd/config/client_checks.py."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.support.config_files import loaded, problem

CERTIFICATE = '[certificate."mail.example.org"]\nchain = "c.pem"\nkey = "k.pem"\n'


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A folder with the files that CERTIFICATE names; what is in them is not looked at here."""
    for name in ("c.pem", "k.pem", "ca.pem"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o600)
    return tmp_path


def notes(folder: Path, text: str) -> str:
    return "\n".join(loaded(folder, text).notes)


# --- TLS --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", ["starttls", "required", "implicit"])
def test_tls_needs_a_certificate(pair: Path, tls: str):
    """The server would start and no client could speak TLS with it."""
    listener = f'[listener.a]\ntls = "{tls}"\n'
    found = problem(pair, listener)
    assert (found.line, found.key) == (2, "tls")
    assert "needs a [certificate]" in found.rule
    assert loaded(pair, listener + CERTIFICATE)


@pytest.mark.parametrize("tls", ["auto", "off"])
def test_without_a_certificate_there_is_no_tls_and_no_error(pair: Path, tls: str):
    """The default serves a newcomer who has none."""
    assert loaded(pair, f'[listener.a]\ntls = "{tls}"\n')


@pytest.mark.parametrize(
    ("rest", "rule"),
    [
        ('tls = "off"\nclient_certificates = "ask"\n' + CERTIFICATE, "this listener speaks none"),
        ('client_certificates = "require"\n', "this listener speaks none"),
        (
            'client_certificates = "require"\n' + CERTIFICATE + '[tls]\nclient_ca = "ca.pem"\n',
            "a client that does not start TLS would need no certificate",
        ),
        ('client_certificates = "ask"\n' + CERTIFICATE, "nothing says who signs"),
    ],
)
def test_certificates_of_clients_need_tls_and_somebody_who_signs_them(pair: Path, rest: str, rule: str):
    """Asked for and never checked is not asked for."""
    found = problem(pair, "[listener.a]\n" + rest)
    assert (found.key, rule in found.rule) == ("client_certificates", True)


@pytest.mark.parametrize("how", [("required", "require"), ("implicit", "require"), ("starttls", "ask")])
def test_certificates_of_clients_can_be_asked_for(pair: Path, how: tuple[str, str]):
    """With TLS and client_ca."""
    text = f'[listener.a]\ntls = "{how[0]}"\nclient_certificates = "{how[1]}"\n'
    assert not notes(pair, text + CERTIFICATE + '[tls]\nclient_ca = "ca.pem"\n').count("client_ca")


@pytest.mark.parametrize(
    "name", ["mail example", "*.*.example.org", "*", "mail.*.org", "@example.org", "[192.0.2.1]"]
)
def test_a_certificates_name_is_a_host_name(pair: Path, name: str):
    """What a client can ask for by SNI (RFC 6066 3), or * for one label."""
    assert "host name" in problem(pair, CERTIFICATE.replace("mail.example.org", name)).rule


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("Mail.Example.org", "mail.example.org"),
        ("*.example.org", "*.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
    ],
)
def test_a_certificates_name_becomes_what_clients_ask_for(pair: Path, name: str, asked: str):
    """RFC 6066 3: A-labels, compared without case."""
    assert list(loaded(pair, CERTIFICATE.replace("mail.example.org", name)).config.certificate) == [asked]


@pytest.mark.parametrize(
    ("one", "other"),
    [("a.example", "A.Example"), ("*.bücher.example", "*.xn--bcher-kva.example")],
)
def test_a_certificates_name_stands_once(pair: Path, one: str, other: str):
    """One of the two would never be used."""
    text = CERTIFICATE.replace("mail.example.org", one) + CERTIFICATE.replace("mail.example.org", other)
    assert "this name stands as" in problem(pair, text).rule


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (CERTIFICATE.replace("c.pem", "no.pem"), "chain"),
        (CERTIFICATE.replace("k.pem", "no.pem"), "key"),
        ('[tls]\nclient_ca = "no.pem"\n', "client_ca"),
    ],
)
def test_files_of_tls_are_there(pair: Path, text: str, key: str):
    """`config check` says it, not the first client."""
    found = problem(pair, text)
    assert (found.key, found.rule) == (key, "there is no such file")


def test_a_certificate_is_a_file(pair: Path):
    """A folder opens and cannot be read."""
    assert "a file is wanted" in problem(pair, CERTIFICATE.replace("c.pem", ".")).rule


def test_a_file_that_cannot_be_opened_is_a_problem_not_a_traceback(pair: Path):
    """Two links that name each other stand for all errors, for root too."""
    (pair / "k.pem").unlink()
    (pair / "k.pem").symlink_to("k.pem")
    assert problem(pair, CERTIFICATE).rule.startswith("this file cannot be read: ")


def test_a_certificate_can_be_read():
    """By whoever checks: the user that starts forkd."""
    # Not pytest's tmp_path: root checks as nobody here, since root may read everything.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file, mode in (("c.pem", 0o644), ("k.pem", 0)):
            (folder / file).write_text("")
            (folder / file).chmod(mode)
        # The whole is checked as somebody else, so the configuration must be there before.
        (folder / "forkd.toml").touch(mode=0o666)
        (folder / "forkd.toml").chmod(0o666)
        me = os.geteuid()
        if me == 0:
            os.seteuid(65534)
        try:
            found = problem(folder, CERTIFICATE)
        finally:
            os.seteuid(me)
    assert (found.rule, found.hint) == (
        "this file cannot be read: permission denied",
        "run this as the user that starts forkd",
    )


def test_a_key_that_everybody_can_read_is_said(pair: Path):
    """It is legal, and it is no secret any more."""
    assert "everybody on this machine may read" not in notes(pair, CERTIFICATE)
    (pair / "k.pem").chmod(0o644)
    assert 'certificate."mail.example.org".key: everybody on this machine may read' in notes(
        pair, CERTIFICATE
    )


def test_a_key_in_the_file_of_the_chain_is_a_secret_too(pair: Path):
    """Without `key` the chain holds it."""
    (pair / "c.pem").chmod(0o644)
    assert "everybody" not in notes(pair, CERTIFICATE)
    assert "everybody" in notes(pair, CERTIFICATE.replace('key = "k.pem"\n', ""))


def test_a_credential_of_systemd_is_there_only_while_it_runs(pair: Path):
    """systemd.exec(5), LoadCredential=: `config check` beside a stopped service must not refuse it."""
    text = CERTIFICATE.replace("k.pem", "/run/credentials/no-such.service/k.pem")
    assert "only while systemd runs forkd" in notes(pair, text)


def test_ciphers_are_openssls(pair: Path):
    """openssl-ciphers(1)."""
    assert "OpenSSL knows none" in problem(pair, '[tls]\nciphers = "SECURE:-)"\n').rule
    assert loaded(pair, '[tls]\nciphers = "ECDHE+AESGCM:!SHA1"\n')


# --- PROXY, networks, names -------------------------------------------------------------------------


def test_a_listener_behind_a_proxy_knows_the_proxies(tmp_path: Path):
    """Only networks.proxy may connect there: with none, nobody could."""
    found = problem(tmp_path, "[listener.a]\nproxy = true\n")
    assert (found.line, found.hint) == (2, "set proxy in [networks]")
    assert loaded(tmp_path, '[listener.a]\nproxy = true\n[networks]\nproxy = ["192.0.2.1"]\n')


@pytest.mark.parametrize("key", ["trusted", "relay", "proxy", "xclient", "wire_reject", "wire_normalize"])
def test_every_list_of_networks_holds_networks(tmp_path: Path, key: str):
    """A misspelt network would match nobody, silently."""
    found = problem(tmp_path, f'[networks]\n{key} = ["10.0.0.1/8"]\n')
    assert (found.key, found.hint) == (key, 'write "10.0.0.0/8"')


@pytest.mark.parametrize("key", ["trusted", "proxy", "xclient"])
def test_the_world_is_trusted_with_nothing(tmp_path: Path, key: str):
    """Whoever may say by PROXY or XCLIENT who he is may be anybody."""
    listener = "[listener.a]\nproxy = true\n" if key == "proxy" else ""
    found = problem(tmp_path, listener + f'[networks]\n{key} = ["::/0"]\n')
    assert (found.key, found.value) == (key, '"::/0"')


def test_a_network_is_in_one_list_of_wire_only(tmp_path: Path):
    """Of two networks the narrower counts; of the same one twice, neither."""
    text = '[networks]\nwire_reject = ["192.0.2.0/24"]\nwire_normalize = ["192.0.2.0/24"]\n'
    assert "stands in wire_reject too" in problem(tmp_path, text).rule
    assert loaded(
        tmp_path, text.replace('wire_normalize = ["192.0.2.0/24', 'wire_normalize = ["192.0.2.0/25')
    )


@pytest.mark.parametrize("server", ["ns.example.org", "192.0.2.53:0", "192.0.2.53:x", "2001:db8::53:53:"])
def test_a_name_server_is_an_address(tmp_path: Path, server: str):
    """A name would need a name server."""
    found = problem(tmp_path, f'[names]\nservers = ["{server}"]\n')
    assert (found.key, "name server's IP address" in found.rule) == ("servers", True)


def test_name_servers_have_ports_when_they_must(tmp_path: Path):
    """A resolver on the same machine often has one of its own."""
    text = '[names]\nservers = ["192.0.2.53", "2001:db8::53", "127.0.0.1:5353", "[::1]:5353"]\n'
    assert len(loaded(tmp_path, text).config.names.servers) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[listener.a]\naddress = "0.0.0.0:465"\n', "on port 465 clients speak TLS at once"),
        (
            '[listener.a]\ngreeting_delay = "2s"\nearly_talker = "ignore"\n',
            "greeting_delay waits for who talks early",
        ),
        ('[listener.a]\ntls = "off"\n' + CERTIFICATE, "no [certificate] is used"),
        ('[tls]\nclient_ca = "ca.pem"\n', "tls.client_ca is not used"),
        ('[networks]\nproxy = ["192.0.2.1"]\n', "networks.proxy is not used"),
        ('[names]\nresolve = false\nservers = ["192.0.2.53"]\n', "names.servers is not used"),
        ("[limits]\nsessions_per_network = 20\n", "sessions_per_network = 20 is below"),
        (
            "[limits]\nmessages_per_minute = 9\nmessages_per_minute_network = 5\n",
            "messages_per_minute_network = 5 is below",
        ),
        (
            "[limits]\nconnections_per_minute = 9\nconnections_per_minute_network = 5\n",
            "connections_per_minute_network = 5 is below",
        ),
        (
            "[limits]\nrecipients_per_minute = 9\nrecipients_per_minute_network = 5\n",
            "recipients_per_minute_network = 5 is below",
        ),
    ],
)
def test_what_has_no_effect_is_a_note(pair: Path, text: str, said: str):
    """Legal, and surely not what was meant."""
    assert said in notes(pair, text)
    assert said not in notes(pair, "")
