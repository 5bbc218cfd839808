"""auth_results - check SPF and DKIM, write Authentication-Results

SYNOPSIS
    plugins.d/15-auth_results.toml:

        plugin = "auth_results"

        [settings]
        refuse_spf = ["fail"]
        signed_domains = ["bank.example"]

        [grants]
        reads = ["envelope", "headers", "body"]
        edit_headers = ["Authentication-Results"]
        export = ["SPFRESULT"]
        dns = ["any"]

DESCRIPTION
    At MAIL it asks the sender's domain whether this client may send for it (SPF, RFC 7208); of a null
    sender it asks the domain of the HELO name. At the end of data it checks the message's signatures (DKIM,
    RFC 6376 with 8301 and 8463), takes out every Authentication-Results that says it was written here, and
    puts its own on top (RFC 8601):

        Authentication-Results: mx.example.org; spf=pass smtp.mailfrom=alice@example.com;
          dkim=pass header.d=example.com header.s=2026 header.a=rsa-sha256 header.b=kXwQ3bT0

    Later plugins see the SPF result in session.exports["SPFRESULT"], compiled ones in their environment.

    Nothing is refused unless you say so: forwarded mail fails SPF, mailing lists break signatures, and most
    mail that is bad passes both. What you may say:

        refuse_spf      results for which MAIL is refused: "fail", "softfail" (550 5.7.23), "permerror"
                        (550 5.7.24), "temperror" (451 4.4.3: a lookup brought no answer, the client
                        comes again)
        signed_domains  domains that sign all their mail: a message From them without a signature of theirs
                        that passes is refused with 550 5.7.22; with 451 4.4.3 when the key could not be
                        looked up

    Clients that authenticated are not asked about: they hand in mail of their own. Nor, for SPF, are those in
    `trusted`: your secondary MX and forwarders, this machine itself. Forged results are taken out for all.

SETTINGS
    authserv_id     our name in the field; default: server.hostname of forkd.toml
    spf, dkim       what is checked; default: both
    trusted         default: this machine
    max_signatures  default: 5; those below are not looked at
    max_size        default: 26214400 octets; larger messages' signatures are not checked (dkim=policy).
                    One of that size takes 0.5 s of CPU time, and limits.cpu is for all of a session: raise
                    it where relays hand in much mail in one
    min_key         default: 1024 bits of an RSA key; smaller keys do not count, nor does rsa-sha1

NAMES CARRY DATA
    The plugin wants dns = ["any"]: policies and keys lie below names that senders choose. So whoever takes
    this plugin over can tell his own name server what he read in this mail, in the names that he asks for.

FAILURE
    When no name can be looked up results are temperror, and mail goes on unless refuse_spf or signed_domains
    say otherwise. When the plugin itself fails, on_failure decides; "skip" is refused, since a forged field
    would then go through.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import auth_dkim
import auth_header
import auth_spf

from forkd.sdk import (
    Address,
    Edit,
    Envelope,
    Message,
    Plugin,
    Sender,
    Session,
    Verdict,
    add_header,
    defer,
    delete_header,
    deny,
    export,
)

_FIELD = "Authentication-Results"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")
_LATER = "the policy of your domain cannot be looked up now, please try again later"
_SPF_REPLIES: dict[str, Callable[[str, str], Verdict]] = {
    "fail": lambda client, domain: deny("5.7.23", f"SPF: {domain} says that {client} must not send for it"),
    "softfail": lambda client, domain: deny(
        "5.7.23", f"SPF: {domain} says that {client} may not send for it"
    ),
    "permerror": lambda _, domain: deny("5.7.24", f"SPF: the policy of {domain} cannot be read"),
    "temperror": lambda _client, _domain: defer("4.4.3", _LATER),
}
"""RFC 7372 3.2; of temperror RFC 7208 8.6."""


def plugin_init(settings: Mapping[str, Any]) -> Plugin:
    """Check the settings; the plugin's hooks."""
    checks = Checks(settings)
    return Plugin(mail=checks.mail, message=checks.message)


class Checks:
    """The settings, and the two hooks that go by them."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._authserv_id: str = settings["authserv_id"]
        if self._authserv_id and not _NAME.fullmatch(self._authserv_id):
            raise ValueError(f"setting authserv_id: {self._authserv_id!r} is no name, as mx.example.org is")
        self._spf: bool = settings["spf"]
        self._dkim: bool = settings["dkim"]
        self._refused: frozenset[str] = frozenset(settings["refuse_spf"])
        self._signed = frozenset(_domain(text) for text in settings["signed_domains"])
        if self._signed and not self._dkim:
            raise ValueError("setting signed_domains: it needs dkim = true")
        if self._refused and not self._spf:
            raise ValueError("setting refuse_spf: it needs spf = true")
        self._trusted = [_network(text) for text in settings["trusted"]]
        self._most: int = settings["max_signatures"]
        self._max_size: int = settings["max_size"]
        self._min_key: int = settings["min_key"]

    def mail(self, session: Session, sender: Sender) -> Verdict | Edit | None:
        """SPF, refused by it where the admin says so."""
        checked = self._check_spf(session, sender)
        if checked is None:
            return None
        if checked.result in self._refused:
            domain = checked.identity.rpartition("@")[2]
            return _SPF_REPLIES[checked.result](session.client_ip, domain)
        return export("SPFRESULT", checked.result)

    def message(
        self, session: Session, envelope: Envelope, message: Message
    ) -> Verdict | Sequence[Edit | Verdict] | None:
        """DKIM, forged fields out, ours on top."""
        authserv_id = self._authserv_id or session.hostname
        edits = self._without_forged(message, authserv_id)
        if session.user:
            return edits
        signatures: list[auth_dkim.Signature] = []
        too_large = self._dkim and message.size > self._max_size
        if self._dkim and not too_large:
            signatures = auth_dkim.check(
                session.dns, message.headers.raw, message.body, most=self._most, min_key=self._min_key
            )
        if self._signed and (refused := self._refuse(message, signatures)) is not None:
            return refused
        results = [*self._spf_result(session, envelope.sender), *map(_dkim_result, signatures)]
        if too_large:
            results.append(auth_header.result("dkim", "policy", reason="message too large"))
        elif self._dkim and not signatures:
            results.append(auth_header.result("dkim", "none"))
        return [*edits, add_header(_FIELD, auth_header.written(authserv_id, results))]

    def _check_spf(self, session: Session, sender: Address) -> auth_spf.Spf | None:
        """The result for this sender, remembered for the end of data; None: it is not asked for."""
        if not self._spf or session.user or self._is_trusted(session.client_ip):
            return None
        checked = auth_spf.check(
            session.dns,
            client=session.client_ip,
            sender=str(sender),
            helo=session.helo or "",
            receiver=session.hostname,
        )
        session.notes["spf"] = (str(sender), checked)
        return checked

    def _spf_result(self, session: Session, sender: Address) -> list[str]:
        # Checked anew where MAIL was decided before this plugin was asked, or nothing is kept between hooks.
        known, checked = session.notes.get("spf", (None, None))
        if known != str(sender):
            checked = self._check_spf(session, sender)
        if checked is None:
            return []
        if checked.helo:
            identity = ("smtp.helo", auth_header.mailbox(checked.identity))
        else:
            identity = ("smtp.mailfrom", auth_header.mailbox(checked.identity))
        return [auth_header.result("spf", checked.result, identity)]

    def _without_forged(self, message: Message, authserv_id: str) -> list[Edit]:
        """From below, so that the numbers of those above stay as they are."""
        values = message.headers.get_all(_FIELD)
        numbered = [n for n, value in enumerate(values, start=1) if auth_header.claims(value, authserv_id)]
        return [delete_header(_FIELD, n) for n in reversed(numbered)]

    def _refuse(self, message: Message, signatures: Sequence[auth_dkim.Signature]) -> Verdict | None:
        """Mail From a domain that signs all of it, without a signature of that domain that passes."""
        for domain in sorted(_from_domains(message) & self._signed):
            own = [signature for signature in signatures if _is_of(signature.domain, domain)]
            if any(signature.result == "pass" for signature in own):
                continue
            if any(signature.result == "temperror" for signature in own):
                return defer("4.4.3", "a key of your domain cannot be looked up now, please try again later")
            return deny(
                "5.7.22", f"DKIM: {domain} signs its mail, and this message has no valid signature of it"
            )
        return None

    def _is_trusted(self, client: str) -> bool:
        address = ipaddress.ip_address(client)
        return any(address in network for network in self._trusted)


def _dkim_result(signature: auth_dkim.Signature) -> str:
    return auth_header.result(
        "dkim",
        signature.result,
        ("header.d", signature.domain),
        ("header.i", signature.identity if signature.identity.count("@") == 1 else ""),
        ("header.s", signature.selector),
        ("header.a", signature.algorithm),
        ("header.b", _quoted(signature.start)),
        reason=signature.reason,
    )


def _quoted(text: str) -> str:
    """RFC 2045 5.1: = and / are no part of a token."""
    return f'"{text}"' if set(text) & set("=/") else text


def _from_domains(message: Message) -> set[str]:
    """Of every address in every From: a second one, which some readers show, is looked at too.

    Comments may stand anywhere in an address (RFC 5322 3.2.2): it is read with them and without.
    """
    found = set()
    for value in message.headers.get_all("From"):
        for text in (value, auth_header.without_comments(value)):
            for domain in re.findall(r"@\s*([A-Za-z0-9-]+(?:\s*\.\s*[A-Za-z0-9-]+)*)", text):
                found.add("".join(domain.split()).lower())
    return found


def _is_of(signer: str, domain: str) -> bool:
    """The domain itself, or one above it that has no fewer than two labels: d= of a parent signs for it."""
    return signer == domain or ("." in signer and domain.endswith("." + signer))


def _domain(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", text):
        raise ValueError(f"setting signed_domains: {text!r} is no domain name, as bank.example is")
    return text.lower()


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError(f"setting trusted: {text!r} is no address or network: {error}") from None
