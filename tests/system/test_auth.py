"""AUTH as clients see it: swaks, msmtp, nodemailer, curl, smtplib against the daemon and its backends."""

from __future__ import annotations

import base64
import os
import pwd
import shlex
import shutil
import smtplib
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkd.auth import passwords, users
from forkd.auth.users import User
from tests.support import node
from tests.support.daemon import Daemon, swaks
from tests.support.dovecot import Dovecot
from tests.support.people import NOBODY, installation, person
from tests.support.pki import Authority
from tests.support.waiting import wait_for
from tests.system.conftest import Make

SECRET = "correct horse"
WRONG = "battery staple"

PEOPLE = (
    ("anna", (), False),
    ("otto@test.local", (), False),
    ("info", ("@shop.example", "info@test.local"), False),
    ("gone", (), True),
)


class Mail:
    """A daemon whose listener `submission` has STARTTLS, `smtps` implicit TLS, `plain` AUTH in the clear,
    `optional` AUTH on an mx."""

    def __init__(self, daemon: Daemon, authority: Authority) -> None:
        self.daemon = daemon
        self.authority = authority

    def port(self, listener: str) -> int:
        lines = [e for e in self.daemon.events("listening") if e["listener"] == listener]
        return int(lines[-1]["address"].rpartition(":")[2])

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.file))
        context.check_hostname = False
        return context

    def client(self, listener: str = "submission") -> smtplib.SMTP:
        client = smtplib.SMTP("127.0.0.1", self.port(listener), local_hostname="client.example", timeout=30)
        self.daemon.clients.append(client)
        client.ehlo()
        if client.has_extn("starttls"):
            client.starttls(context=self.context())
            client.ehlo()
        return client

    def auths(self, **fields: str) -> list[dict[str, Any]]:
        return [e for e in self.daemon.events("auth") if all(e.get(k) == v for k, v in fields.items())]

    def swaks(self, arguments: str, listener: str = "submission") -> subprocess.CompletedProcess[str]:
        return swaks(
            self.daemon,
            f"--port {self.port(listener)} --helo client.example --from anna@test.local "
            f"--to swaks@test.local {arguments}",
        )


def prepare(daemon: Daemon, uid: int, *, backend: str = 'backend = "users"', more: str = "") -> Mail:
    """Start a daemon that was made but not started."""
    authority = Authority(daemon.folder)
    pair = authority.pair("mx.example")
    with users.edit(daemon.folder / "users") as change:
        for login, addresses, disabled in PEOPLE:
            argon2, scram = passwords.make_argon2(SECRET), passwords.make_scram(SECRET)
            change.put(User(login, argon2, scram, addresses, disabled))
    daemon.config += (
        '\n[listener.submission]\naddress = "127.0.0.1:0"\nrole = "submission"\n'
        '[listener.smtps]\naddress = "127.0.0.1:0"\nrole = "submission"\ntls = "implicit"\n'
        '[listener.plain]\naddress = "127.0.0.1:0"\nrole = "submission"\nauth_without_tls = true\n'
        'tls = "off"\n[listener.optional]\naddress = "127.0.0.1:0"\nauth = "on"\nauth_without_tls = true\n'
        f'{pair.table("mx.example")}\n[auth]\n{backend}\nfailure_delay = "200ms"\n{more}\n'
    )
    daemon.write_config()
    for path in daemon.folder.iterdir():
        # Started by root, workers are `nobody` (people.py), who has the file of users by its group.
        os.chown(path, uid, pwd.getpwuid(uid or NOBODY).pw_gid)
    return Mail(daemon.start(), authority)


@pytest.fixture(scope="module")
def mail() -> Iterator[Mail]:
    """One daemon with a users file for all tests that change nothing; no limit of failures."""
    me = person("user")
    root, python = installation()
    folder = Path(tempfile.mkdtemp(prefix="forkd-", dir="/var/tmp"))
    folder.chmod(0o755)
    os.chown(folder, me.uid, -1)
    daemon = Daemon(folder, config=f"[server]\n{me.server}", prefix=me.prefix, python=python, root=root)
    try:
        yield prepare(daemon, me.uid, more="[limits]\naccount_failures_per_minute = 0\n")
        for client in daemon.clients:  # one in a transaction would be waited for (server.stop_timeout)
            client.close()
        daemon.stop()
        # No library writes past our log, no session ended by a bug of ours.
        strays = [line for line in daemon.log_text().splitlines() if not line.startswith("{")]
        assert not strays
        assert not daemon.events("bug")
    finally:
        daemon.__exit__()
        shutil.rmtree(folder, ignore_errors=True)


MakeMail = Callable[..., Mail]


@pytest.fixture
def make_mail(make_daemon: Make, who) -> MakeMail:
    return lambda server="", **more: prepare(make_daemon(start=False, server=server), who.uid, **more)


def plain(user: str, password: str, authorize_as: str = "") -> str:
    return base64.b64encode(f"{authorize_as}\0{user}\0{password}".encode()).decode()


# --- what is offered, where -----------------------------------------------------------------------------


def test_auth_is_offered_under_tls_only(mail: Mail):
    """RFC 4954 4, 6: nothing to guess before; 538 5.7.11 for who tries; offered inside."""
    client = smtplib.SMTP("127.0.0.1", mail.port("submission"), timeout=30)
    client.ehlo("client.example")
    assert not client.has_extn("auth")
    assert client.docmd("AUTH", f"PLAIN {plain('anna', SECRET)}")[0] == 538
    client.starttls(context=mail.context())
    client.ehlo("client.example")
    assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN", "SCRAM-SHA-256"]
    client.close()


def test_submission_wants_auth_and_the_mx_does_not_offer_it(mail: Mail):
    """530 5.7.0 before it (RFC 6409 4.3); auth = "auto" is off for an mx."""
    client = mail.client()
    assert client.docmd("MAIL FROM:<anna@test.local>") == (530, b"5.7.0 Authentication needed")
    assert not mail.client("default").has_extn("auth")


@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "DIGEST-MD5", "OAUTHBEARER", "GSSAPI"])
def test_what_is_not_offered_is_refused(mail: Mail, mechanism: str):
    """504: a mechanism that needs the password in the clear on our side, or a plugin that is not there."""
    assert mail.client().docmd("AUTH", mechanism)[0] == 504


# --- right and wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auth_plain", "auth_login"])
@pytest.mark.parametrize("initial", [True, False])
def test_smtplib_logs_in(mail: Mail, method: str, initial: bool):
    """PLAIN and LOGIN, with and without an initial response."""
    client = mail.client()
    client.user, client.password = "anna", SECRET
    mechanism = method.removeprefix("auth_").upper()
    code, _ = client.auth(mechanism, getattr(client, method), initial_response_ok=initial)
    assert code == 235
    assert client.docmd("AUTH", f"PLAIN {plain('anna', SECRET)}")[0] == 503


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("anna", WRONG),
        ("nobody", SECRET),
        ("gone", SECRET),
        ("anna", f"{SECRET} "),
    ],
)
def test_every_failure_is_told_the_same(mail: Mail, user: str, password: str):
    """A wrong password, nobody called so, a disabled one: one text, nothing to tell users apart."""
    client = mail.client()
    assert client.docmd("AUTH", f"PLAIN {plain(user, password)}") == (535, b"5.7.8 Authentication failed")
    assert client.docmd("MAIL FROM:<anna@test.local>")[0] == 530


def test_acting_for_somebody_else_is_refused(mail: Mail):
    """An authorization identity that is not one's own (RFC 4616 2); one's own is fine."""
    client = mail.client()
    assert client.docmd("AUTH", f"PLAIN {plain('anna', SECRET, 'info')}")[0] == 535
    assert client.docmd("AUTH", f"PLAIN {plain('anna', SECRET, 'anna')}")[0] == 235


def test_giving_up_is_no_failure(mail: Mail):
    """`*` is 501 (RFC 4954 4); the client may begin anew."""
    client = mail.client()
    assert client.docmd("AUTH", "LOGIN")[0] == 334
    assert client.docmd("*")[0] == 501
    assert client.docmd("AUTH", f"PLAIN {plain('anna', SECRET)}")[0] == 235


def test_mail_tells_who_handed_it_in_by_its_protocol_word(mail: Mail):
    """ESMTPSA (RFC 3848); the log has the user."""
    client = mail.client()
    client.login("otto@test.local", SECRET)
    client.sendmail("otto@test.local", ["word@test.local"], b"Subject: x\r\n\r\nhello\r\n")
    text = wait_for(lambda: mail.daemon.mailbox("word"))[0].read_text()
    assert "with ESMTPSA" in text
    assert mail.auths(result="ok", user="otto@test.local", mechanism="PLAIN", by="users")


def test_no_secret_reaches_the_log(mail: Mail):
    """Neither right nor wrong ones, in no encoding."""
    client = mail.client()
    client.docmd("AUTH", f"PLAIN {plain('anna', WRONG)}")
    client.docmd("AUTH", f"LOGIN {base64.b64encode(b'anna').decode()}")
    client.docmd(base64.b64encode(SECRET.encode()).decode())
    wait_for(lambda: mail.auths(result="ok", mechanism="LOGIN"))
    log = mail.daemon.log_text()
    for secret in (SECRET, WRONG):
        assert secret not in log
        assert base64.b64encode(secret.encode()).decode()[:12] not in log
        assert plain("anna", secret) not in log


# --- who may send as whom -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("login", "sender", "code"),
    [
        ("anna", "anna@test.local", 250),
        ("anna", "ANNA+list@test.local", 250),
        ("anna", "", 250),
        ("anna", "otto@test.local", 553),
        ("anna", "anna@elsewhere.example", 553),
        ("otto@test.local", "otto@test.local", 250),
        ("info", "sales@shop.example", 250),
        ("info", "info@test.local", 250),
        ("info", "anna@test.local", 553),
    ],
)
def test_the_sender_is_an_address_of_the_user(mail: Mail, login: str, sender: str, code: int):
    """RFC 6409 6.1; the null sender is everybody's (notifications)."""
    client = mail.client("plain")
    client.login(login, SECRET)
    assert client.docmd(f"MAIL FROM:<{sender}>")[0] == code


def test_on_an_mx_who_logs_in_may_send_as_anybody(mail: Mail):
    """The check is of submission; AUTH is not needed there."""
    client = mail.client("optional")
    client.login("anna", SECRET)
    assert client.docmd("MAIL FROM:<otto@elsewhere.example>")[0] == 250
    assert mail.client("optional").docmd("MAIL FROM:<otto@elsewhere.example>")[0] == 250


# --- clients --------------------------------------------------------------------------------------------

LOGIN = f"--auth-user anna --auth-password '{SECRET}'"


@pytest.mark.parametrize(
    ("listener", "arguments"),
    [
        ("submission", f"--tls --auth PLAIN {LOGIN}"),
        ("submission", f"--tls --auth LOGIN {LOGIN}"),
        ("submission", f"--tls --auth PLAIN,LOGIN {LOGIN}"),
        ("submission", f"--tls --auth {LOGIN}"),
        ("submission", f"--tls --auth PLAIN {LOGIN} --auth-plaintext --auth-hide-password"),
        ("submission", f"--tls --auth-optional PLAIN {LOGIN}"),
        ("submission", f"--tls --auth-optional-strict LOGIN {LOGIN}"),
        ("submission", f"--tls --auth-map PLAIN=LOGIN --auth LOGIN {LOGIN}"),
        ("smtps", f"--tls-on-connect --auth PLAIN {LOGIN}"),
        ("plain", f"--auth LOGIN {LOGIN}"),
        ("optional", f"--auth PLAIN {LOGIN}"),
        ("optional", ""),
    ],
)
def test_swaks_delivers(mail: Mail, listener: str, arguments: str):
    """Every way in which swaks does AUTH that we have."""
    told = mail.swaks(arguments, listener)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "250 2.0.0 Ok: queued" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (f"--auth PLAIN {LOGIN}", "did not advertise"),
        (f"--tls --auth CRAM-MD5 {LOGIN}", ""),
        (f"--tls --auth NTLM {LOGIN}", ""),
        (f"--tls --auth DIGEST-MD5 {LOGIN}", ""),
        (f"--tls --auth PLAIN --auth-user anna --auth-password '{WRONG}'", "535 5.7.8"),
        (f"--tls --auth LOGIN --auth-user nobody --auth-password '{SECRET}'", "535 5.7.8"),
        ("--tls", "530 5.7.0"),
    ],
)
def test_swaks_is_refused(mail: Mail, arguments: str, said: str):
    """Without TLS, by mechanisms that are not offered, with a wrong password, without AUTH."""
    told = mail.swaks(arguments)
    assert told.returncode != 0
    assert "queued" not in told.stdout
    assert any(each in told.stdout + told.stderr for each in said.split("|"))


def msmtp(mail: Mail, method: str, *, password: str = SECRET) -> subprocess.CompletedProcess[bytes]:
    command = [
        *("msmtp", "--host=127.0.0.1", f"--port={mail.port('submission')}", "--tls=on", "--tls-starttls=on"),
        *(f"--tls-trust-file={mail.authority.file}", "--tls-host-override=mx.example", f"--auth={method}"),
        *("--user=anna", f"--passwordeval=echo {shlex.quote(password)}", "--from=anna@test.local"),
        *("--domain=client.example", f"--to=msmtp-{method}@test.local"),
    ]
    command = [part for part in command if not part.startswith("--to=")]
    return subprocess.run(
        [*command, f"msmtp-{method}@test.local"],
        input=b"Subject: from msmtp\n\nhello\n",
        capture_output=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )


@pytest.mark.parametrize("method", ["plain", "login", "scram-sha-256", "on"])
def test_msmtp_delivers(mail: Mail, method: str):
    """GNU SASL's PLAIN, LOGIN and SCRAM-SHA-256 (it checks our proof, too)."""
    told = msmtp(mail, method)
    assert told.returncode == 0, told.stderr
    assert wait_for(lambda: mail.daemon.mailbox(f"msmtp-{method}"))


@pytest.mark.parametrize("method", ["plain", "scram-sha-256"])
def test_msmtp_hears_of_a_wrong_password(mail: Mail, method: str):
    """535, with SCRAM as with PLAIN."""
    told = msmtp(mail, method, password=WRONG)
    assert told.returncode != 0
    assert b"535" in told.stderr


def test_curl_logs_in(mail: Mail):
    """curl --ssl-reqd with --login-options of each mechanism it has."""
    for options in ("AUTH=PLAIN", "AUTH=LOGIN", "AUTH=*"):
        told = subprocess.run(
            [
                *("curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", str(mail.authority.file)),
                *("--connect-to", f"mx.example:25:127.0.0.1:{mail.port('submission')}"),
                *("--url", "smtp://mx.example:25/client.example", "--login-options", options),
                *("--user", f"anna:{SECRET}"),
                *("--mail-from", "anna@test.local", "--mail-rcpt", "curl@test.local", "--upload-file", "-"),
            ],
            input=b"Subject: from curl\r\n\r\nhello\r\n",
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert told.returncode == 0, (options, told.stderr)


def test_nodemailer_delivers(mail: Mail):
    """Node.js' client: STARTTLS and implicit, its own choice of mechanism and LOGIN, EAUTH for a refusal."""
    common = {"host": "127.0.0.1", "tls": {"ca": mail.authority.file.read_text(), "servername": "mx.example"}}
    letter = {"from": "anna@test.local", "to": "node@test.local", "subject": "x", "text": "hello"}
    ways: list[dict[str, Any]] = [
        {"port": mail.port("submission"), "requireTLS": True},
        {"port": mail.port("submission"), "requireTLS": True, "authMethod": "LOGIN"},
        {"port": mail.port("smtps"), "secure": True},
    ]
    for way in ways:
        told = node.send({**common, **way, "auth": {"user": "anna", "pass": SECRET}}, letter)
        assert "250 2.0.0" in told["response"], told
    told = node.send({**common, **ways[0], "auth": {"user": "anna", "pass": WRONG}}, letter)
    assert told["code"] == "EAUTH"
    assert told["response"] == "535 5.7.8 Authentication failed"


# --- the users file while the daemon runs ---------------------------------------------------------------


def test_users_change_while_it_runs(make_mail: MakeMail):
    """`forkd user` and the next AUTH: added, disabled, removed; a broken file keeps what was read."""
    mail = make_mail(server="workers = 1\n")  # each worker keeps what it has read itself
    config = mail.daemon.folder / "forkd.toml"

    def user(*arguments: str, password: str = "") -> None:
        told = subprocess.run(
            [*mail.daemon.prefix, mail.daemon.python, "-m", "forkd", "user", *arguments, "-c", str(config)],
            input=f"{password}\n",
            cwd=mail.daemon.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(mail.daemon.root)},
        )
        assert told.returncode == 0, told.stderr

    def auth(name: str, password: str) -> int:
        return mail.client("plain").docmd("AUTH", f"PLAIN {plain(name, password)}")[0]

    assert auth("new", "first") == 535
    user("add", "new", "--password-stdin", password="first")
    assert auth("new", "first") == 235
    user("passwd", "new", "--password-stdin", password="second")
    assert auth("new", "first") == 535
    assert auth("new", "second") == 235
    client = mail.client("plain")
    client.login("new", "second")
    user("change", "new", "--disable")
    assert auth("new", "second") == 535
    assert client.docmd("MAIL FROM:<new@test.local>")[0] == 553
    user("change", "new", "--enable")
    assert client.docmd("MAIL FROM:<new@test.local>")[0] == 250
    file = mail.daemon.folder / "users"
    file.write_text(file.read_text() + "broken nonsense\n")
    assert auth("new", "second") == 235
    assert wait_for(lambda: [e for e in mail.daemon.events("auth_backend") if e["act"] == "unreadable"])


# --- limits ---------------------------------------------------------------------------------------------


def test_a_client_that_guesses_is_shown_the_door(make_mail: MakeMail):
    """limits.auth_failures_per_minute: 421 4.7.0, over connections and workers; the right password too."""
    limits = "[limits]\nauth_failures_per_minute = 3\naccount_failures_per_minute = 0\n"
    mail = make_mail(more=f"[networks]\ntrusted = []\n{limits}")
    for number in range(3):
        assert mail.client("plain").docmd("AUTH", f"PLAIN {plain(f'user{number}', WRONG)}")[0] == 535
    told = mail.client("plain").docmd("AUTH", f"PLAIN {plain('anna', SECRET)}")
    assert told == (421, b"4.7.0 Too many failed authentications")
    assert mail.auths(result="limited")


def test_an_account_that_is_guessed_at_is_not_looked_at(make_mail: MakeMail):
    """limits.account_failures_per_minute: 454 4.7.0 for right and wrong passwords; others go on."""
    mail = make_mail(more="[limits]\naccount_failures_per_minute = 3\n")
    for _ in range(3):
        assert mail.client("plain").docmd("AUTH", f"PLAIN {plain('anna', WRONG)}")[0] == 535
    assert mail.client("plain").docmd("AUTH", f"PLAIN {plain('ANNA', SECRET)}")[0] == 454
    assert mail.client("plain").docmd("AUTH", f"PLAIN {plain('info', SECRET)}")[0] == 235


# --- Dovecot --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_dovecot_knows_the_passwords(make_mail: MakeMail):
    """PLAIN, LOGIN, SCRAM-SHA-256 handed through; wrong ones refused; away: 454; back: found again."""
    with Dovecot({"anna": SECRET, "otto": "other"}) as dovecot:
        mail = make_mail(backend=f'backend = "dovecot"\ndovecot = "{dovecot.socket}"')
        client = mail.client()
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN", "SCRAM-SHA-256"]
        client.login("anna", SECRET)
        client.sendmail("anna@test.local", ["dovecot@test.local"], b"Subject: x\r\n\r\nhello\r\n")
        assert wait_for(lambda: mail.daemon.mailbox("dovecot"))
        for method in ("plain", "login", "scram-sha-256"):
            told = msmtp(mail, method)
            assert told.returncode == 0, told.stderr
            assert b"535" in msmtp(mail, method, password=WRONG).stderr
        assert mail.auths(result="ok", by="dovecot", mechanism="SCRAM-SHA-256", user="anna")
        assert mail.auths(result="refused", by="dovecot", mechanism="SCRAM-SHA-256", user="anna")

        dovecot.stop()
        wait_for(lambda: [e for e in mail.daemon.events("auth_backend") if e["act"] == "lost"])
        assert mail.client("plain").docmd("AUTH", f"PLAIN {plain('anna', SECRET)}")[0] == 454
        assert mail.auths(result="temporary")
        dovecot.start()
        wait_for(
            lambda: mail.client("plain").docmd("AUTH", f"PLAIN {plain('anna', SECRET)}")[0] == 235,
            timeout_s=20,
        )


def test_a_dovecot_that_comes_later_is_found(make_mail: MakeMail):
    """Start-up does not wait for it; SCRAM is offered once it has said that it can."""
    dovecot = Dovecot({"anna": SECRET})
    try:
        mail = make_mail(backend=f'backend = "dovecot"\ndovecot = "{dovecot.socket}"')
        assert mail.client("plain").esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
        assert mail.client("plain").docmd("AUTH", f"PLAIN {plain('anna', SECRET)}")[0] == 454
        dovecot.start()
        wait_for(
            lambda: mail.client("plain").docmd("AUTH", f"PLAIN {plain('anna', SECRET)}")[0] == 235,
            timeout_s=20,
        )
        wait_for(lambda: "SCRAM-SHA-256" in mail.client("plain").esmtp_features["auth"])
    finally:
        dovecot.__exit__()


# --- checkpassword --------------------------------------------------------------------------------------


def test_a_checkpassword_program_knows_the_passwords(make_mail: MakeMail):
    """cr.yp.to/checkpwd: fd 3; 0 is yes, 1 no, 111 and 2 are 454; in a sandbox of its own each time."""
    folder = Path(tempfile.mkdtemp(prefix="checkpassword-", dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        source = folder / "check.c"
        source.write_text(CHECK_C.replace("SECRET", SECRET))
        program = folder / "check"
        built = subprocess.run(
            ["cc", "-O1", "-o", str(program), str(source)], capture_output=True, text=True, check=False
        )
        if built.returncode != 0:
            pytest.skip(f"no C compiler: {built.stderr}")
        program.chmod(0o755)
        mail = make_mail(backend=f'backend = "checkpassword"\ncheckpassword = ["{program}", "/bin/true"]')
        client = mail.client()
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
        client.login("anna", SECRET)
        client.sendmail("anna@test.local", ["check@test.local"], b"Subject: x\r\n\r\nhello\r\n")
        assert wait_for(lambda: mail.daemon.mailbox("check"))

        def auth(user: str, password: str) -> int:
            return mail.client("plain").docmd("AUTH", f"PLAIN {plain(user, password)}")[0]

        assert auth("anna", WRONG) == 535
        assert auth("nobody", SECRET) == 535
        assert auth("busy", SECRET) == 454
        assert auth("broken", SECRET) == 454
        assert auth("anna", "x" * 600) == 535
        assert auth("anna", SECRET) == 235
    finally:
        shutil.rmtree(folder, ignore_errors=True)


CHECK_C = r"""
#include <string.h>
#include <unistd.h>
/* As qmail's: login and password from descriptor 3; the right one becomes argv[1]. */
int main(int argc, char **argv) {
    char buffer[513] = {0};
    size_t size = 0;
    ssize_t got;
    (void)argc;
    while ((got = read(3, buffer + size, 512 - size)) > 0) size += (size_t)got;
    close(3);
    char *password = buffer + strlen(buffer) + 1;
    if (!strcmp(buffer, "busy")) return 111;
    if (!strcmp(buffer, "broken")) return 2;
    if (strcmp(buffer, "anna") || strcmp(password, "SECRET")) return 1;
    execv(argv[1], argv + 1);
    return 111;
}
"""
