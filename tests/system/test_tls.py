"""TLS as clients see it: swaks, openssl, curl, smtplib against the real daemon."""

from __future__ import annotations

import os
import shlex
import shutil
import smtplib
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, swaks
from tests.support.people import installation, person
from tests.support.pki import Authority, Pair, serial_of
from tests.support.waiting import wait_for
from tests.system.conftest import Make

FIRST = "mx.first.example"
SECOND = "mx.second.example"
WILD = "*.wild.example"


class Tls:
    """A daemon with certificates: listeners default (starttls), required, implicit."""

    def __init__(self, daemon: Daemon, authority: Authority, pairs: dict[str, Pair]) -> None:
        self.daemon = daemon
        self.authority = authority
        self.pairs = pairs
        self._before = 0

    def mark(self) -> None:
        """failures() from now on."""
        self._before = len(self.daemon.events("tls_failure"))

    def failures(self, count: int = 1) -> list[dict]:
        """That many failed handshakes since mark()."""
        return wait_for(
            lambda: found if len(found := self.daemon.events("tls_failure")[self._before :]) >= count else []
        )

    def port(self, listener: str) -> int:
        lines = [e for e in self.daemon.events("listening") if e["listener"] == listener]
        return int(lines[-1]["address"].rpartition(":")[2])

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.file))

    def serial(self, name: str | None = FIRST, listener: str = "implicit") -> int:
        """Serial number of what a new handshake shows."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", self.port(listener)), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname=name) as secured,
        ):
            der = secured.getpeercert(binary_form=True)
            assert der is not None
            assert secured.recv(4) == b"220 "
            return serial_of(der)


MakeTls = Callable[..., Tls]


def certified(daemon: Daemon, uid: int, *, listeners: str = "") -> Tls:
    """Start a daemon that was made but not started, with three pairs of files."""
    authority = Authority(daemon.folder)
    pairs = {name: authority.pair(name) for name in (FIRST, SECOND, WILD)}
    daemon.config += (
        '\n[listener.implicit]\naddress = "127.0.0.1:0"\ntls = "implicit"\n'
        '[listener.required]\naddress = "127.0.0.1:0"\ntls = "required"\n'
        f'{listeners}\n[tls]\nreread = "1s"\nclient_ca = "ca.pem"\n'
        + "".join(pair.table(name) for name, pair in pairs.items())
    )
    daemon.write_config()
    for path in daemon.folder.iterdir():
        os.chown(path, uid, -1)
    return Tls(daemon.start(), authority, pairs)


@pytest.fixture
def make_tls(make_daemon: Make, who) -> MakeTls:
    """A daemon of the test's own, for tests that change something."""
    return lambda **more: certified(make_daemon(start=False), who.uid, **more)


@pytest.fixture(scope="module")
def shared() -> Iterator[Tls]:
    """One daemon for all tests that only look."""
    person_ = person("user")
    root, python = installation()
    folder = Path(tempfile.mkdtemp(prefix="forkd-", dir="/var/tmp"))
    folder.chmod(0o755)
    os.chown(folder, person_.uid, -1)
    daemon = Daemon(
        folder,
        config=f"[server]\n{person_.server}",
        prefix=person_.prefix,
        python=python,
        root=root,
    )
    try:
        yield certified(daemon, person_.uid)
        daemon.stop()
        # No library writes past our log, no session ended by a bug of ours.
        strays = [line for line in daemon.log_text().splitlines() if not line.startswith("{")]
        assert not strays
        assert not daemon.events("bug")
    finally:
        daemon.__exit__()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def tls(shared: Tls) -> Tls:
    shared.mark()
    return shared


def s_client(port: int, arguments: str, *, say: str = "QUIT\r\n") -> subprocess.CompletedProcess[str]:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-crlf", *shlex.split(arguments)]
    return subprocess.run(command, input=say, capture_output=True, text=True, timeout=60, check=False)


def s_client_starttls(port: int, arguments: str) -> subprocess.CompletedProcess[str]:
    return s_client(port, f"-starttls smtp {arguments}")


# --- the handshake -----------------------------------------------------------------------------------


def test_smtplib_starts_tls_and_mail_arrives(tls: Tls):
    """RFC 3207: the certificate verifies for the name, EHLO anew inside, STARTTLS offered once."""
    with smtplib.SMTP("127.0.0.1", tls.port("default"), timeout=30) as client:
        client.ehlo()
        assert client.has_extn("starttls")
        client._host = FIRST
        client.starttls(context=tls.context())
        client.ehlo()
        assert not client.has_extn("starttls")
        assert client.docmd("STARTTLS")[0] == 503
        client.sendmail("a@client.example", ["tls@test.local"], b"Subject: private\r\n\r\nhello\r\n")
    mail = wait_for(lambda: tls.daemon.mailbox("tls"))[0].read_text()
    assert "with ESMTPS" in mail
    assert "TLSv1.3" in mail


def test_implicit_tls_greets_inside(tls: Tls):
    """RFC 8314 3.3: no octet in the clear; STARTTLS is not offered."""
    context = tls.context()
    with smtplib.SMTP_SSL("127.0.0.1", tls.port("implicit"), timeout=30, context=_unnamed(context)) as client:
        client.ehlo()
        assert not client.has_extn("starttls")
        client.sendmail("a@client.example", ["implicit@test.local"], b"Subject: x\r\n\r\nhello\r\n")
    assert "with ESMTPS" in wait_for(lambda: tls.daemon.mailbox("implicit"))[0].read_text()


def _unnamed(context: ssl.SSLContext) -> ssl.SSLContext:
    context.check_hostname = False
    return context


def test_required_means_before_mail(tls: Tls):
    """RFC 3207 4: 530 5.7.0 for everything but NOOP, EHLO, STARTTLS, QUIT."""
    with smtplib.SMTP("127.0.0.1", tls.port("required"), timeout=30) as client:
        client.ehlo("client.example")
        assert client.docmd("MAIL FROM:<a@client.example>")[0] == 530
        client.starttls(context=_unnamed(tls.context()))
        client.ehlo("client.example")
        assert client.docmd("MAIL FROM:<a@client.example>")[0] == 250


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (FIRST, FIRST),
        (SECOND, SECOND),
        (SECOND.upper(), SECOND),
        ("a.wild.example", WILD),
        ("a.b.wild.example", FIRST),
        ("unknown.example", FIRST),
        (None, FIRST),
    ],
)
def test_the_certificate_is_that_of_the_name(tls: Tls, name: str | None, wanted: str):
    """SNI by name, by wildcard of one label (RFC 9525 6.3), else the first one."""
    assert tls.serial(name) == tls.pairs[wanted].serial()


def test_openssl_sees_both_certificates(tls: Tls):
    """s_client -starttls smtp -servername: chain complete, verified."""
    for name in (FIRST, SECOND):
        told = s_client_starttls(
            tls.port("default"),
            f"-servername {name} -verify_hostname {name} -CAfile {tls.authority.file} -verify_return_error",
        )
        assert "Verify return code: 0 (ok)" in told.stdout
        assert f"DNS:{name}" in _text(told.stdout)


def _text(output: str) -> str:
    return subprocess.run(
        ["openssl", "x509", "-noout", "-text"], input=output, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("version", ["tls1", "tls1_1"])
@pytest.mark.parametrize("listener", ["default", "implicit"])
def test_old_tls_is_refused(tls: Tls, version: str, listener: str):
    """TLS 1.0 and 1.1 are not spoken (RFC 8996), the log says why the handshake failed."""
    how = s_client if listener == "implicit" else s_client_starttls
    told = how(tls.port(listener), f"-{version} -cipher ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in told.stdout
    failure = tls.failures()[0]
    assert failure["reason"] == "unsupported protocol"
    assert failure["listener"] == listener
    wait_for(
        lambda: [
            e
            for e in tls.daemon.events("session")
            if e["session"] == failure["session"] and e["reason"] == "tls"
        ]
    )


@pytest.mark.parametrize(("version", "shown"), [("tls1_2", "TLSv1.2"), ("tls1_3", "TLSv1.3")])
def test_both_modern_versions_are_spoken(tls: Tls, version: str, shown: str):
    """TLS 1.2 at least, 1.3 where the client has it; no compression, no renegotiation from outside."""
    told = s_client_starttls(tls.port("default"), f"-{version}")
    assert f"New, {shown}" in told.stdout
    assert "Compression: NONE" in told.stdout
    assert s_client_starttls(tls.port("default"), "").stdout.count("New, TLSv1.3")


def test_renegotiation_is_refused(tls: Tls):
    """A client that asks for it (openssl: a line with R) gets no new handshake: it costs us more than it."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{tls.port('implicit')}", "-crlf", "-tls1_2"]
    piped = subprocess.PIPE
    with subprocess.Popen(command, bufsize=0, stdin=piped, stdout=piped, stderr=piped) as client:
        assert client.stdout is not None
        told = b""
        # A greeting that crosses the client's request would end the client before it hears the refusal.
        while b"\n220 " not in told:
            piece = os.read(client.stdout.fileno(), 65536)
            assert piece, told
            told += piece
        _, complaint = client.communicate(b"R\n", timeout=60)
    assert b"no renegotiation" in complaint


def test_a_session_can_be_resumed(tls: Tls, tmp_path: Path):
    """Tickets: a client that comes again saves the handshake's arithmetic (RFC 8446 2.2)."""
    ticket = tmp_path / "ticket"
    s_client(tls.port("implicit"), f"-tls1_2 -sess_out {ticket}")
    # Each worker has a key of its own: one of a few tries meets the same.
    assert any(
        "Reused, TLSv1.2" in s_client(tls.port("implicit"), f"-tls1_2 -sess_in {ticket}").stdout
        for _ in range(20)
    )


def test_nothing_said_before_the_handshake_is_heard_after_it(tls: Tls):
    """Commands put behind STARTTLS in one segment are not obeyed inside (CVE-2011-0411): 554 and close."""
    with socket.create_connection(("127.0.0.1", tls.port("default")), timeout=30) as client:
        reader = client.makefile("rb")
        assert reader.readline().startswith(b"220 ")
        client.sendall(b"EHLO client.example\r\n")
        while not reader.readline().startswith(b"250 "):
            pass
        client.sendall(b"STARTTLS\r\nMAIL FROM:<injected@client.example>\r\n")
        assert reader.readline().startswith(b"554 5.5.1")
        assert reader.read() == b""


def test_octets_behind_220_are_the_handshake(tls: Tls):
    """A client that does not speak TLS there loses the connection; nothing of it becomes a command."""
    with socket.create_connection(("127.0.0.1", tls.port("default")), timeout=30) as client:
        reader = client.makefile("rb")
        reader.readline()
        client.sendall(b"EHLO client.example\r\n")
        while not reader.readline().startswith(b"250 "):
            pass
        client.sendall(b"STARTTLS\r\n")
        assert reader.readline().startswith(b"220 ")
        client.sendall(b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@test.local>\r\nDATA\r\n")
        assert b"250" not in reader.read()
    failure = tls.failures()[0]
    assert failure["reason"]


def test_a_client_set_to_implicit_tls_on_a_port_in_the_clear_is_told(tls: Tls):
    """It waits for our handshake, and we would wait for its line: closed at once, with a text that helps,
    and in the log among the failed handshakes."""
    hello, heard = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        tls.context().wrap_bio(heard, hello, server_hostname=FIRST).do_handshake()
    with socket.create_connection(("127.0.0.1", tls.port("default")), timeout=30) as client:
        reader = client.makefile("rb")
        assert reader.readline().startswith(b"220 ")
        client.sendall(hello.read())
        said = reader.readline()
        assert said.startswith(b"421 4.7.0 ")
        assert b"STARTTLS" in said
        assert reader.read() == b""
    failure = tls.failures()[0]
    assert (failure["listener"], failure["level"]) == ("default", "warning")
    assert "begins in the clear" in failure["reason"]
    ends = wait_for(
        lambda: [each for each in tls.daemon.events("session") if each["session"] == failure["session"]]
    )
    assert (ends[0]["reason"], ends[0]["last_reply"]) == ("tls", said.decode().strip())
    with (
        socket.create_connection(("127.0.0.1", tls.port("required")), timeout=30) as plain,
        pytest.raises(ssl.SSLError),
    ):
        tls.context().wrap_socket(plain, server_hostname=FIRST)
    assert tls.failures(2)[1]["listener"] == "required"


def test_a_client_that_leaves_in_the_handshake_is_logged(tls: Tls):
    """Gone after the first octet: the session ends, its place is free."""
    with socket.create_connection(("127.0.0.1", tls.port("implicit")), timeout=30) as client:
        client.sendall(b"\x16")
    failure = tls.failures()[0]
    assert failure["reason"] == "the client went away"


def test_state_from_before_the_handshake_is_forgotten(tls: Tls):
    """RFC 3207 4.2: HELO inside is needed again."""
    with smtplib.SMTP("127.0.0.1", tls.port("default"), timeout=30) as client:
        client.ehlo("client.example")
        client.starttls(context=_unnamed(tls.context()))
        assert client.docmd("MAIL FROM:<a@client.example>")[0] == 503


# --- swaks, curl -----------------------------------------------------------------------------------------

TO = "--to tls@test.local --from a@client.example --helo client.example"


@pytest.mark.parametrize(
    ("listener", "arguments"),
    [
        ("default", "--tls"),
        ("default", "--tls-optional"),
        ("default", "--tls-optional-strict"),
        ("required", "--tls"),
        ("default", "--tls --tls-protocol tlsv1_2"),
        ("default", "--tls --tls-protocol tlsv1_3"),
        ("default", "--tls --tls-protocol no_tlsv1_3"),
        ("default", "--tls --tls-cipher ECDHE-ECDSA-AES256-GCM-SHA384 --tls-protocol tlsv1_2"),
        ("default", f"--tls --tls-sni {SECOND}"),
        ("default", "--tls --tls-verify --tls-ca-path CA"),
        ("default", f"--tls --tls-sni {SECOND} --tls-verify --tls-ca-path CA"),
        ("default", "--tls --tls-get-peer-cert PEM"),
        ("implicit", "--tls-on-connect --tls-verify --tls-ca-path CA"),
        ("implicit", "--tls-on-connect"),
        ("implicit", f"--tls-on-connect --tls-sni {SECOND} --tls-protocol tlsv1_2"),
    ],
)
def test_swaks_delivers(tls: Tls, listener: str, arguments: str, tmp_path: Path):
    """Every way in which swaks does TLS."""
    # A file of its own for the certificate: as root swaks would put one in the place of /dev/stdout.
    arguments = arguments.replace("CA", str(tls.authority.file)).replace("PEM", str(tmp_path / "peer.pem"))
    told = swaks(tls.daemon, f"--port {tls.port(listener)} {TO} {arguments}")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "TLS started with cipher" in told.stdout
    if "--tls-get-peer-cert" in arguments:
        assert (tmp_path / "peer.pem").read_text().startswith("-----BEGIN CERTIFICATE-----")


def test_swaks_is_refused_where_it_must_be(tls: Tls, tmp_path: Path):
    """Plain on `required`: 530; an authority that is not ours: swaks' own refusal; TLS 1.1: no handshake."""
    plain = swaks(tls.daemon, f"--port {tls.port('required')} {TO}")
    assert "530 5.7.0" in plain.stdout
    stranger = Authority(tmp_path)
    wrong = swaks(
        tls.daemon, f"--port {tls.port('default')} {TO} --tls --tls-verify --tls-ca-path {stranger.file}"
    )
    assert wrong.returncode != 0
    old = swaks(tls.daemon, f"--port {tls.port('default')} {TO} --tls --tls-protocol tlsv1_1")
    assert old.returncode != 0


def test_curl_sends_with_ssl_required(tls: Tls):
    """curl --ssl-reqd and smtps://, both verified against our authority."""
    port, implicit = tls.port("default"), tls.port("implicit")
    for user, url in (("curl", f"smtp://{FIRST}:{port}"), ("curls", f"smtps://{FIRST}:{implicit}")):
        told = subprocess.run(
            [
                *("curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", str(tls.authority.file)),
                *("--resolve", f"{FIRST}:{port}:127.0.0.1", "--resolve", f"{FIRST}:{implicit}:127.0.0.1"),
                *("--url", url, "--mail-from", "a@client.example", "--mail-rcpt", f"{user}@test.local"),
                *("--upload-file", "-"),
            ],
            input=b"Subject: from curl\r\n\r\nhello\r\n",
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert told.returncode == 0, told.stderr
        assert wait_for(lambda user=user: tls.daemon.mailbox(user))


# --- client certificates ---------------------------------------------------------------------------------


def _with_client(tls: Tls, arguments: str, listener: str) -> str:
    return swaks(tls.daemon, f"--port {tls.port(listener)} {TO} --tls {arguments}").stdout


def test_client_certificates_asked_and_required(make_tls: MakeTls):
    """ask: with one or without; require: with one of tls.client_ca only, the log says why not."""
    tls = make_tls(
        listeners='[listener.ask]\naddress = "127.0.0.1:0"\nclient_certificates = "ask"\n'
        '[listener.require]\naddress = "127.0.0.1:0"\ntls = "required"\nclient_certificates = "require"\n'
    )
    mine = tls.authority.pair("relay one", file="client", client=True)
    (tls.daemon.folder / "other").mkdir()
    other = Authority(tls.daemon.folder / "other").pair("stranger", client=True)
    show = f"--tls-cert {mine.chain} --tls-key {mine.key}"
    assert "250 2.0.0" in _with_client(tls, "", "ask")
    assert "250 2.0.0" in _with_client(tls, show, "ask")
    assert "250 2.0.0" in _with_client(tls, show, "require")
    assert "250 2.0.0" not in _with_client(tls, "", "require")
    assert "250 2.0.0" not in _with_client(tls, f"--tls-cert {other.chain} --tls-key {other.key}", "require")
    shown = [event.get("certificate", "").partition(",")[0] for event in tls.daemon.told("session", 5)]
    assert shown == ["", "CN=relay one", "CN=relay one", "", ""]
    failures = tls.failures(2)
    assert failures[0]["reason"] == "peer did not return a certificate"
    assert failures[1]["reason"].startswith("certificate verify failed")


# --- files that change -----------------------------------------------------------------------------------


def test_a_new_pair_is_used_while_old_sessions_go_on(make_tls: MakeTls):
    """Watched by stat; new handshakes have the new certificate, a session under way does not notice."""
    tls = make_tls()
    old = tls.serial()
    with smtplib.SMTP("127.0.0.1", tls.port("default"), timeout=30) as client:
        client.ehlo("client.example")
        client.starttls(context=_unnamed(tls.context()))
        client.ehlo("client.example")
        new = tls.authority.pair(FIRST).serial()
        _take_over(tls)
        wait_for(lambda: {tls.serial() for _ in range(8)} == {new}, timeout_s=30)
        assert old != new
        assert tls.serial(SECOND) == tls.pairs[SECOND].serial()
        client.sendmail("a@client.example", ["going-on@test.local"], b"Subject: x\r\n\r\nhello\r\n")
    assert wait_for(lambda: tls.daemon.mailbox("going-on"))
    assert {e["name"] for e in tls.daemon.events("certificate") if e["act"] == "replaced"} == {FIRST}


def _take_over(tls: Tls) -> None:
    """A new key is the daemon's user's, as the old one was."""
    os.chown(tls.pairs[FIRST].key, tls.daemon.folder.stat().st_uid, -1)


def test_a_bad_new_pair_keeps_the_old_one(make_tls: MakeTls):
    """A key that does not fit, garbage, no file at all: logged once each, TLS goes on with what was loaded;
    a worker that is started then has it too; and a good pair after that is taken."""
    tls = make_tls()
    old = tls.serial()

    def kept() -> list[str]:
        return [e["reason"] for e in tls.daemon.events("certificate") if e["act"] == "kept"]

    pair = tls.pairs[FIRST]
    pair.key.write_bytes(tls.pairs[SECOND].key.read_bytes())
    wait_for(lambda: len(kept()) == 1, timeout_s=30)
    assert "the key is not that of the certificate" in kept()[0]
    assert str(pair.key) in kept()[0]
    pair.chain.unlink()
    wait_for(lambda: len(kept()) == 2, timeout_s=30)
    assert "No such file" in kept()[1]
    pair.key.unlink()
    wait_for(lambda: len(kept()) == 3, timeout_s=30)
    assert tls.serial() == old

    workers = tls.daemon.role("worker")
    os.kill(workers[0], 9)
    wait_for(lambda: len(set(tls.daemon.role("worker")) - {workers[0]}) == len(workers), timeout_s=30)
    assert {tls.serial() for _ in range(8)} == {old}
    assert len(kept()) == 3

    new = tls.authority.pair(FIRST).serial()
    _take_over(tls)
    wait_for(lambda: {tls.serial() for _ in range(8)} == {new}, timeout_s=30)


def test_a_wrong_certificate_stops_start_up(make_daemon: Make, who):
    """One line with table, key and file, exit status 78; nothing was started."""
    daemon = make_daemon(start=False)
    authority = Authority(daemon.folder)
    one, two = authority.pair("one.example"), authority.pair("two.example")
    daemon.config += f'\n[certificate."one.example"]\nchain = "{one.chain.name}"\nkey = "{two.key.name}"\n'
    daemon.write_config()
    for path in daemon.folder.iterdir():
        os.chown(path, who.uid, -1)
    daemon.start(ready=False)
    assert daemon.process is not None
    assert daemon.process.wait(60) == 78
    (failed,) = [e for e in daemon.events("service") if e["act"] == "failed"]
    assert failed["detail"] == (
        f'[certificate."one.example"] key = {two.key}: the key is not that of the certificate in {one.chain}'
    )


def test_keys_are_in_workers_only(tls: Tls):
    """Sealed memory files: of master and its workers, never of the roles that have no use for them."""

    def holds(pid: int) -> bool:
        links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        return any("memfd:forkd: certificate" in link for link in links)

    assert holds(tls.daemon.role("worker")[0])
    for role in ("qmgr", "admin", "anvil"):
        assert not holds(tls.daemon.role(role)[0])


def test_without_certificates_starttls_is_not_offered(make_daemon: Make):
    """tls = "auto" without a [certificate]: as before, and STARTTLS is 502."""
    daemon = make_daemon()
    client = daemon.smtp()
    client.ehlo()
    assert not client.has_extn("starttls")
    assert client.docmd("STARTTLS")[0] == 502
