"""auth_results: its manual page, and published DKIM vectors (RFC 8463 appendix A, those of dkimpy)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dkim
import pytest

from forkd.sdk import AddHeader, DeleteHeader
from forkd.sdk.fakes import FakeDns
from forkd.sdk.plugin import SettingsError
from forkd.sdk.testing import Answer, assert_deferred, assert_denied, assert_passed, load_plugin
from tests.support.vectors import vector

FOLDER = Path(__file__).parent.parent.parent / "plugins" / "auth_results"
NAME = "mx.test.local"
MESSAGE = "From: a@example.org\nTo: user@test.local\nSubject: hello\n\nbody\n"
RSA_KEY = vector("data/test.txt").read_bytes()
ED25519_KEY = b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="  # RFC 8463 A.2
KEYS = {
    "brisbane._domainkey.football.example.com": {"txt": [ED25519_KEY]},
    "test._domainkey.football.example.com": {"txt": [RSA_KEY]},
    "test._domainkey.example.com": {"txt": [RSA_KEY]},
}


def ask(
    message: str | bytes,
    *,
    names: dict[str, Any] | None = None,
    sender: str = "a@example.org",
    client_ip: str = "192.0.2.1",
    user: str = "",
    **settings: Any,
) -> Answer:
    plugin = load_plugin(FOLDER, settings=settings)
    dns = FakeDns(KEYS if names is None else names)
    session = plugin.session(client_ip=client_ip, hostname=NAME, user=user, helo="client.example", dns=dns)
    return session.deliver(message, sender=sender, recipients=["user@test.local"])


def field(answer: Answer) -> str:
    """The one field that was written."""
    added = [edit for edit in answer.edits if isinstance(edit, AddHeader)]
    assert [edit.name for edit in added] == ["Authentication-Results"]
    return added[0].value


def signed(**changes: Any) -> bytes:
    """MESSAGE, signed for example.com with the vectors' RSA key."""
    message = MESSAGE.replace("\n", "\r\n").encode()
    key = vector("data/test.private").read_bytes()
    with_defaults = {"selector": b"test", "domain": b"example.com", "privkey": key} | changes
    signature: bytes = dkim.sign(message, **with_defaults)
    return signature + message


# --- DKIM -----------------------------------------------------------------------------------------


def test_the_message_of_rfc_8463_passes_twice():
    """RFC 8463 A.3: one signature by Ed25519, one by RSA, of the same domain."""
    said = field(ask(vector("data/rfc6376.signed.msg").read_bytes(), spf=False))
    results = said.split("; ")
    assert results[0] == NAME
    assert len(results) == 3
    assert all(result.startswith("dkim=pass header.d=football.example.com") for result in results[1:])
    assert {re.search(r"header\.a=(\S+)", result)[1] for result in results[1:]} == {  # type: ignore[index]
        "ed25519-sha256",
        "rsa-sha256",
    }


@pytest.mark.parametrize("canonical", [(b"simple", b"simple"), (b"relaxed", b"relaxed")])
def test_what_was_signed_passes_and_what_was_changed_fails(canonical: tuple[bytes, bytes]):
    """RFC 6376 6.1.3."""
    message = signed(canonicalize=canonical)
    assert "dkim=pass header.d=example.com" in field(ask(message))
    assert "dkim=fail (body has changed)" in field(ask(message.replace(b"body\r\n", b"other\r\n")))
    assert "dkim=fail (signature does not match)" in field(ask(message.replace(b"hello", b"other")))
    with_second_from = b"From: c@evil.example\r\n" + message
    assert "dkim=fail" in field(ask(with_second_from))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({}, "dkim=permerror (no key)"),
        ({"test._domainkey.example.com": {"txt": [b"v=DKIM1; p="]}}, "dkim=permerror (no usable key)"),
        ({"test._domainkey.example.com": {"txt": [b"v=DKIM9; " + RSA_KEY]}}, "dkim=permerror"),
        ({"test._domainkey.example.com": "temporary"}, "dkim=temperror (no answer for the key)"),
    ],
    ids=["none", "revoked", "version", "temporary"],
)
def test_a_key_that_cannot_be_had(names: dict[str, Any], said: str):
    """RFC 6376 6.1.2, RFC 8601 2.7.1."""
    assert said in field(ask(signed(), names=names))


def test_weak_keys_and_hashes_do_not_count():
    """RFC 8301 3.1, 3.2."""
    assert "dkim=policy (a key of 1024 bits does not count)" in field(ask(signed(), min_key=2048))
    weak = signed(signature_algorithm=b"rsa-sha1")
    assert "dkim=policy (rsa-sha1 does not count)" in field(ask(weak))


def test_a_signature_over_a_part_says_so():
    """RFC 6376 8.2: behind `l=` anybody can add what he likes."""
    assert "dkim=pass (signed in part)" in field(ask(signed(length=True) + b"more\r\n"))


@pytest.mark.parametrize(
    "signature",
    [
        "DKIM-Signature: v=1; a=rsa-sha256",
        "DKIM-Signature: nonsense",
        "DKIM-Signature:",
        "DKIM-Signature: v=1; a=none; d=example.com; s=test; h=from; bh=x; b=y",
        "DKIM-Signature: v=1; a=rsa-sha256; d=a(b; s=test; h=from; bh=!!; b=!!",
        "DKIM-Signature: v=1; a=rsa-sha256; c=none/none; d=example.com; s=test; h=from; bh=eA==; b=eA==",
    ],
)
def test_a_signature_that_cannot_be_read(signature: str):
    """RFC 8601 2.7.1: neutral; nothing odd of it is told again."""
    said = field(ask(f"{signature}\n{MESSAGE}"))
    assert "dkim=neutral (malformed)" in said or "dkim=fail" in said
    assert "a(b" not in said


def test_bounds():
    """SETTINGS: max_signatures, max_size."""
    many = b"".join(signed().split(b"From:")[0] for _ in range(4)) + MESSAGE.replace("\n", "\r\n").encode()
    assert field(ask(many, max_signatures=2)).count("dkim=") == 2
    large = MESSAGE + "x" * 70 + "\n" + ("y" * 70 + "\n") * 20
    assert "dkim=policy (message too large)" in field(ask(large, max_size=1024))
    assert "dkim=none" in field(ask(MESSAGE))


# --- the field ------------------------------------------------------------------------------------

FORGED = [
    "mx.test.local; spf=pass",
    "MX.Test.Local; dkim=pass",
    '"mx.test.local"; dkim=pass',
    '"mx.\\test.local" 1; dkim=pass',
    "(a comment (in it)) mx.test.local 1; none",
    "\n mx.test.local; none",
    "mx.test.local (x); spf=pass",
    "(never closed mx.test.local; spf=pass",
    "mx.test.local",
]
OTHERS = [
    "mx.example.net; spf=pass",
    "test.local; spf=pass",
    "mx.test.local.evil.example; spf=pass",
    "(x); none",
]


@pytest.mark.parametrize("value", FORGED)
def test_a_forged_field_is_taken_out(value: str):
    """RFC 8601 5: what claims to be ours and is not."""
    answer = ask(f"Authentication-Results: {value}\n{MESSAGE}")
    assert [edit for edit in answer.edits if isinstance(edit, DeleteHeader)]


@pytest.mark.parametrize("value", OTHERS)
def test_other_peoples_fields_stay(value: str):
    """They may be true for somebody."""
    answer = ask(f"Authentication-Results: {value}\n{MESSAGE}")
    assert not [edit for edit in answer.edits if isinstance(edit, DeleteHeader)]


def test_of_many_fields_the_right_ones_go():
    """Numbers are those of the header as it came: taken out from below."""
    lines = [f"Authentication-Results: {value}" for value in (FORGED[0], OTHERS[0], FORGED[1], OTHERS[1])]
    answer = ask("\n".join(lines) + f"\n{MESSAGE}")
    deleted = [edit for edit in answer.edits if isinstance(edit, DeleteHeader)]
    assert [edit.n for edit in deleted] == [3, 1]


def test_who_authenticated_is_not_asked_about_but_cannot_forge():
    """DESCRIPTION: mail of one's own users."""
    answer = ask(f"Authentication-Results: {FORGED[0]}\n{MESSAGE}", user="alice")
    assert [type(edit) for edit in answer.edits] == [DeleteHeader]


def test_the_name_is_the_hosts_or_the_settings():
    assert field(ask(MESSAGE)).startswith(f"{NAME}; ")
    assert field(ask(MESSAGE, authserv_id="mail.example")).startswith("mail.example; ")


# --- SPF ------------------------------------------------------------------------------------------

POLICY = {"example.org": {"txt": [b"v=spf1 ip4:192.0.2.1 ~ip4:192.0.2.2 -all"]}}


def test_the_result_stands_in_the_field():
    said = field(ask(MESSAGE, names=POLICY))
    assert said == f"{NAME}; spf=pass smtp.mailfrom=a@example.org; dkim=none"
    assert "spf=softfail" in field(ask(MESSAGE, names=POLICY, client_ip="192.0.2.2"))
    assert "spf=fail" in field(ask(MESSAGE, names=POLICY, client_ip="192.0.2.3"))
    assert "spf=none" in field(ask(MESSAGE, names={}))
    assert "spf=temperror" in field(ask(MESSAGE, names={"example.org": "temporary"}))


def test_a_null_sender_is_asked_about_by_its_helo_name():
    """RFC 7208 2.4."""
    names = {"client.example": {"txt": [b"v=spf1 ip4:192.0.2.1 -all"]}}
    assert "spf=pass smtp.helo=client.example" in field(ask(MESSAGE, names=names, sender=""))


def test_an_odd_local_part_is_not_told_again():
    """RFC 8601 2.2: a pvalue is no place for a quoted string of a stranger's."""
    said = field(ask(MESSAGE, names=POLICY, sender='"a; dkim=pass"@example.org'))
    assert "smtp.mailfrom=example.org;" in said
    assert "dkim=pass" not in said


@pytest.mark.parametrize(
    ("client_ip", "names", "refused", "code", "enhanced"),
    [
        ("192.0.2.3", POLICY, "fail", 550, "5.7.23"),
        ("192.0.2.2", POLICY, "softfail", 550, "5.7.23"),
        ("192.0.2.1", {"example.org": {"txt": [b"v=spf1 nonsense:x"]}}, "permerror", 550, "5.7.24"),
    ],
)
def test_results_that_refuse(client_ip: str, names: dict[str, Any], refused: str, code: int, enhanced: str):
    """DESCRIPTION: refuse_spf; RFC 7372 3.2."""
    denied = ask(MESSAGE, names=names, client_ip=client_ip, refuse_spf=[refused])
    assert_denied(denied, code=code, enhanced=enhanced)
    assert_passed(ask(MESSAGE, names=names, client_ip=client_ip))


def test_a_temporary_error_defers_where_it_is_to():
    answer = ask(MESSAGE, names={"example.org": "temporary"}, refuse_spf=["temperror"])
    assert_deferred(answer, code=451, enhanced="4.4.3")


def test_trusted_clients_are_not_asked_about():
    said = field(ask(MESSAGE, names=POLICY, client_ip="198.51.100.7", trusted=["198.51.100.0/24"]))
    assert "spf=" not in said


# --- domains that sign ----------------------------------------------------------------------------


def test_mail_from_a_domain_that_signs_needs_its_signature():
    """DESCRIPTION: signed_domains; RFC 7372 3.1."""
    domains = ["example.org", "example.com"]
    assert_denied(ask(MESSAGE, signed_domains=domains), code=550, enhanced="5.7.22")
    by_another = signed()  # by example.com, From example.org
    assert_denied(ask(by_another, signed_domains=domains), enhanced="5.7.22")
    own = MESSAGE.replace("a@example.org", "a@mail.example.com")
    message = (
        dkim.sign(
            own.replace("\n", "\r\n").encode(),
            b"test",
            b"example.com",
            vector("data/test.private").read_bytes(),
        )
        + own.replace("\n", "\r\n").encode()
    )
    assert_passed(ask(message, signed_domains=["mail.example.com"]))
    late = ask(
        message, signed_domains=["mail.example.com"], names={"test._domainkey.example.com": "temporary"}
    )
    assert_deferred(late, code=451, enhanced="4.4.3")


@pytest.mark.parametrize(
    "author",
    [
        "x@(c)example.org",
        "x@example(a (nested) one).org",
        "x@ example . org",
        "(a@b.example) x@Example.ORG",
        '"a@b.example" <x@example.org>',
        "(never closed x@example.org",
    ],
)
def test_odd_forms_of_an_author_hide_no_domain(author: str):
    """RFC 5322 3.2.2, 4.4: comments and blanks within an address."""
    message = MESSAGE.replace("a@example.org", author)
    assert_denied(ask(message, signed_domains=["example.org"]), enhanced="5.7.22")


def test_a_body_is_prepared_once_for_all_signatures():
    """A large body with several signatures: each over its own body, in simple and relaxed form."""
    relaxed = signed(canonicalize=(b"relaxed", b"relaxed"))
    simple = signed(canonicalize=(b"simple", b"simple"))
    both = relaxed.split(b"From:")[0] + simple.split(b"From:")[0] + simple[simple.index(b"From:") :]
    said = field(ask(relaxed.split(b"From:")[0] + both))
    assert said.count("dkim=pass") == 3
    assert field(ask((relaxed.split(b"From:")[0] + both).replace(b"body", b"other"))).count("dkim=fail") == 3


def test_a_second_author_is_looked_at_too():
    """Some readers show the last From."""
    double = f"From: b@other.example\n{MESSAGE}"
    assert_denied(ask(double, signed_domains=["example.org"]), enhanced="5.7.22")


@pytest.mark.parametrize(
    "settings",
    [
        {"authserv_id": "a b"},
        {"authserv_id": "x;"},
        {"signed_domains": ["nodots"]},
        {"signed_domains": ["example.org"], "dkim": False},
        {"refuse_spf": ["fail"], "spf": False},
        {"trusted": ["192.0.2.0/40"]},
        {"refuse_spf": ["pass"]},
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any]):
    with pytest.raises(SettingsError):
        load_plugin(FOLDER, settings=settings)
