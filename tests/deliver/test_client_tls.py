"""forkd/deliver/client_tls.py: real handshakes on loopback, with certificates of an authority of our own."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from pathlib import Path

import pytest

from forkd.deliver.client_tls import ClientTls, matches
from forkd.deliver.hosts import Hop
from tests.support.pki import Authority, Pair, first_certificate

FIXED = Hop("mail.example.org", "127.0.0.1", 25)
BY_MX = Hop("mx7.provider.test", "127.0.0.1", 25, "example.org")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


def handshake(pair: Pair, tls: ClientTls, hop: Hop, **server: object) -> tuple[str, str]:
    """What the client found wrong, and what the server was asked for by SNI."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.chain, pair.key)
    for name, value in server.items():
        if name == "client_ca":
            context.load_verify_locations(str(value))
            context.verify_mode = ssl.CERT_REQUIRED
        else:
            setattr(context, name, value)
    asked: list[str] = []
    context.sni_callback = lambda _, name, __: asked.append(name or "")
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with context.wrap_socket(theirs, server_side=True) as secured:
                secured.send(b"220\r\n")
                secured.recv(1)
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    ours.settimeout(20)
    try:
        with tls.context(hop).wrap_socket(ours, server_hostname=tls.server_name(hop)) as secured:
            secured.recv(5)
            return tls.problem(secured, hop), "".join(asked)
    except ssl.SSLError as error:
        return str(error), "".join(asked)
    finally:
        ours.close()
        thread.join(20)


def required(authority: Authority, **more: object) -> ClientTls:
    return ClientTls("required", authorities=authority.file.read_text(), **more)  # type: ignore[arg-type]


def fingerprint(pair: Pair) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first_certificate(pair.chain.read_text()))).hexdigest()


def test_the_right_certificate_is_right(authority: Authority):
    pair = authority.pair("mail.example.org")
    assert handshake(pair, required(authority), FIXED) == ("", "mail.example.org")


def test_an_address_must_stand_in_the_certificate_too(authority: Authority):
    """A fixed host that is configured by its address: and nothing goes over by SNI (RFC 6066 3)."""
    hop = Hop("127.0.0.1", "127.0.0.1", 25)
    assert handshake(authority.pair("127.0.0.1", file="address"), required(authority), hop) == ("", "")
    assert "not for 127.0.0.1" in handshake(authority.pair("mail.example.org"), required(authority), hop)[0]


WRONG = {
    "another name": (
        {"names": ("other.example.org",)},
        "certificate is for other.example.org, not for mail.",
    ),
    "expired": ({"days": -1}, "certificate has expired"),
    "of another authority": ({"stranger": True}, "unable to get local issuer certificate"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_certificate_is_refused_where_tls_is_required(
    authority: Authority, tmp_path: Path, name: str
):
    """And the admin hears what is wrong with it."""
    how, why = WRONG[name]
    issuer = Authority(tmp_path) if how.get("stranger") else authority
    pair = issuer.pair(*how.get("names", ("mail.example.org",)), file="wrong", days=how.get("days", 90))
    assert why in handshake(pair, required(authority), FIXED)[0]


@pytest.mark.parametrize("name", WRONG)
def test_opportunistic_takes_every_certificate(authority: Authority, tmp_path: Path, name: str):
    """RFC 7435: better than the clear, against who only listens."""
    how, _ = WRONG[name]
    issuer = Authority(tmp_path) if how.get("stranger") else authority
    pair = issuer.pair(*how.get("names", ("mail.example.org",)), file="wrong", days=how.get("days", 90))
    assert handshake(pair, ClientTls("opportunistic"), FIXED)[0] == ""


def test_a_pinned_certificate_is_right_whatever_stands_in_it(authority: Authority, tmp_path: Path):
    """Neither authority, nor name, nor dates; and no other certificate, however well signed."""
    pinned = Authority(tmp_path).pair("whatever.test", days=-1)
    digits = fingerprint(pinned)
    colons = ":".join(digits[at : at + 2] for at in range(0, 64, 2)).upper()
    for text in (digits, colons):
        tls = ClientTls("required", fingerprints=("00" * 32, text))
        assert handshake(pinned, tls, FIXED)[0] == ""
        assert "fingerprint is another" in handshake(authority.pair("mail.example.org"), tls, FIXED)[0]


def test_a_host_found_by_mx_must_prove_that_it_serves_the_domain(authority: Authority):
    """RFC 8461 2: whoever forges the answer of DNS has a certificate for the name that he puts there."""
    tls = required(authority)
    assert tls.proves_domain
    why, asked = handshake(authority.pair("mx7.provider.test"), tls, BY_MX)
    assert "is for mx7.provider.test, not for example.org or .example.org" in why
    assert asked == "mx7.provider.test"
    for name in ("example.org", "mx.example.org"):
        assert handshake(authority.pair(name), tls, BY_MX)[0] == ""


def test_an_admin_may_say_which_name_it_is(authority: Authority):
    """tls_name: of a provider that serves many domains."""
    tls = required(authority, name=".provider.test")
    assert not tls.proves_domain
    assert handshake(authority.pair("mx7.provider.test"), tls, BY_MX) == ("", "mx7.provider.test")
    assert "not for .provider.test" in handshake(authority.pair("mx.example.org"), tls, BY_MX)[0]
    tls = required(authority, name="mail.example.org")
    hop = Hop("127.0.0.1", "127.0.0.1", 25)
    assert handshake(authority.pair("mail.example.org"), tls, hop) == ("", "mail.example.org")


def test_our_own_certificate_is_shown(authority: Authority):
    """tls_certificate, where a server asks for one."""
    pair, own = authority.pair("mail.example.org"), authority.pair("us.example.org", client=True)
    shows = required(authority, certificate=(own.chain, own.key))
    assert handshake(pair, shows, FIXED, client_ca=authority.file)[0] == ""
    assert handshake(pair, required(authority), FIXED, client_ca=authority.file)[0]


def test_nothing_older_than_tls_1_2_is_spoken(authority: Authority):
    """RFC 8996."""
    with pytest.warns(DeprecationWarning):
        why, _ = handshake(
            authority.pair("mail.example.org"),
            ClientTls("opportunistic"),
            FIXED,
            minimum_version=ssl.TLSVersion.TLSv1,
            maximum_version=ssl.TLSVersion.TLSv1_1,
        )
    assert why


def test_somebody_must_say_who_may_sign():
    with pytest.raises(ValueError, match="nothing says who"):
        ClientTls("required")


@pytest.mark.parametrize(
    ("name", "wanted", "right"),
    [
        ("mail.example.org", "mail.example.org", True),
        ("MAIL.example.ORG", "mail.example.org", True),
        ("*.example.org", "mail.example.org", True),
        ("*.example.org", "a.mail.example.org", False),
        ("*.example.org", "example.org", False),
        ("*.org", "example.org", False),
        ("m*.example.org", "mail.example.org", False),
        ("mail.example.org", ".example.org", True),
        ("*.mail.example.org", ".example.org", True),
        ("example.org", ".example.org", False),
        ("evilexample.org", ".example.org", False),
        ("evil\0.example.org", ".example.org", False),
        ("mail.example.org.evil.test", "mail.example.org", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1", True),
        ("*.0.2.1", "192.0.2.1", False),
    ],
)
def test_which_names_match(name: str, wanted: str, right: bool):
    """RFC 9525 6.3: `*` is a whole first label, and of no top level domain."""
    assert matches(name, wanted) is right
