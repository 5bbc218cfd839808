"""Can each [transport] of kind "smtp" or "lmtp" reach what it names, and does it keep its secrets?"""

from __future__ import annotations

import ipaddress
import re
import ssl
import stat
from pathlib import Path
from typing import Final

from forkd.config.addresses import overlap, parse_address, parse_host
from forkd.config.checking import CREDENTIALS, Check, dotted
from forkd.config.domains import DOMAIN_NAME, is_domain
from forkd.config.lines import KeyPath
from forkd.config.next_hop_schema import MAX_PASSWORD_OCTETS, UNIX, Lmtp, NextHop, Smtp, password_length
from forkd.config.problems import display_path

MAX_UNIX_OCTETS: Final = 107
"""unix(7), without the NUL at the end."""
SMTP_PORT: Final = 25
_FINGERPRINT: Final = re.compile(r"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){31}")
_OTHER_DIGESTS: Final = {32: "MD5", 40: "SHA-1", 96: "SHA-384", 128: "SHA-512"}


def next_hops(c: Check) -> None:
    """Of CHECKS: hosts, certificates, passwords."""
    for name, table in c.config.transport.items():
        if not isinstance(table, NextHop):
            continue
        path: KeyPath = ("transport", name)
        if isinstance(table, Smtp):
            _hosts(c, path, table)
            _sources(c, path, table)
        elif isinstance(table, Lmtp):
            _address(c, path, table)
        if c.clean((*path, "tls")):
            _tls(c, path, table)
        _certificate(c, path, table)
        _login(c, path, table)
        own = (*path, "hostname")
        literal = table.hostname.startswith("[") and table.hostname.endswith("]")
        if c.clean(own) and c.given(own) and not literal and not DOMAIN_NAME.fullmatch(table.hostname):
            c.bad(own, "this is a host name, as in mail.example.org", value=table.hostname)


# --- where it goes ---------------------------------------------------------------------------------------


def _hosts(c: Check, path: KeyPath, table: Smtp) -> None:
    where = (*path, "hosts")
    if not c.clean(where, (*path, "port"), (*path, "tls")):
        return
    port = table.usual_port
    for text in table.hosts:
        try:
            host, own = parse_host(text)
        except ValueError as error:
            c.bad(where, str(error), value=text, hint=_host_slip(text))
            continue
        _not_ourselves(c, where, text, host, own or port)
        _family(c, where, table, text, host)
    if table.port == 465 and table.tls != "implicit":
        c.notes.append(
            f"{dotted((*path, 'port'))}: servers speak TLS at once on port 465 (RFC 8314 7.3), "
            'and tls is not "implicit"'
        )
    if table.verifies and not table.hosts and not table.tls_name and not table.tls_fingerprints:
        c.notes.append(
            f'{dotted((*path, "tls"))} = "{table.tls}" without hosts: mail goes only to domains whose '
            "servers have a certificate for the domain itself or a name below it; see tls_name"
        )


def _host_slip(text: str) -> str:
    bare = text.removeprefix("smtp:").removeprefix("[").removesuffix("]")
    try:
        return f'write "[{bare}]"' if ipaddress.ip_address(bare).version == 6 else f'write "{bare}"'
    except ValueError:
        return f'write "{bare}"' if bare != text and is_domain(bare) else ""


def _not_ourselves(c: Check, path: KeyPath, text: str, host: str, port: int) -> None:
    """A next hop that is our own listener sends mail in circles."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    for name, listener in c.config.listener.items():
        try:
            ours, our_port = parse_address(listener.address)
        except ValueError:
            continue
        if port == our_port and overlap(host, ours):
            c.bad(path, f"this is {dotted(('listener', name))}: mail would go in circles", value=text)


def _family(c: Check, path: KeyPath, table: Smtp, text: str, host: str) -> None:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return
    if table.family not in ("any", f"ipv{version}"):
        c.bad(path, f'this is an IPv{version} address, and family = "{table.family}"', value=text)


def _sources(c: Check, path: KeyPath, table: Smtp) -> None:
    """Addresses of ours, each of its family."""
    for version in (4, 6):
        key = f"source_ipv{version}"
        text: str = getattr(table, key)
        if not text or not c.clean((*path, key)):
            continue
        try:
            right = ipaddress.ip_address(text).version == version
        except ValueError:
            right = False
        if not right:
            c.bad((*path, key), f"this is an IPv{version} address of this machine", value=text)
        elif table.family not in ("any", f"ipv{version}"):
            c.notes.append(f'{dotted((*path, key))} is not used: family is "{table.family}"')


def _address(c: Check, path: KeyPath, table: Lmtp) -> None:
    where = (*path, "address")
    if not c.clean(where):
        return
    if not table.address:
        c.bad(where, "this key must be set", hint='write "unix:/run/dovecot/lmtp" or "HOST:PORT"')
    elif table.address.startswith(UNIX):
        _socket(c, where, table.unix)
    else:
        try:
            host, port = parse_host(table.address)
        except ValueError:
            host, port = "", 0
        if not port:
            hint = f'write "{UNIX}{table.address}"' if table.address.startswith("/") else ""
            c.bad(where, 'this is "unix:/PATH" or "HOST:PORT"', value=table.address, hint=hint)
        elif port == SMTP_PORT:
            c.bad(where, "LMTP is not spoken on port 25 (RFC 2033 5)", value=table.address)
        else:
            _not_ourselves(c, where, table.address, host, port)


def _socket(c: Check, path: KeyPath, name: str) -> None:
    """A mail store that is down is no reason not to start: its mail waits."""
    if not name.startswith("/"):
        c.bad(path, "a socket is named by its whole path, from / on", value=UNIX + name)
        return
    if len(name.encode()) > MAX_UNIX_OCTETS or "\0" in name:
        c.bad(path, f"a socket's path has {MAX_UNIX_OCTETS} octets at most (unix(7))", value=UNIX + name)
        return
    try:
        mode = Path(name).stat().st_mode
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        c.notes.append(f"{dotted(path)}: {name} could not be looked at: {said}")
        return
    if not stat.S_ISSOCK(mode):
        c.bad(path, "this is no socket", value=UNIX + name)


# --- TLS -------------------------------------------------------------------------------------------------


def _tls(c: Check, path: KeyPath, table: NextHop) -> None:
    """What must be right can be checked; what is never looked at is said."""
    if table.unix and table.tls != "off":
        c.bad((*path, "tls"), "TLS is not spoken over a unix socket", value=table.tls, hint='write "off"')
        return
    for key in ("tls_ca", "tls_fingerprints", "tls_name"):
        if not getattr(table, key):
            continue
        if not table.verifies:
            c.notes.append(
                f'{dotted((*path, key))} is not used: with tls = "{table.tls}" no certificate is looked at'
            )
        elif key != "tls_fingerprints" and table.tls_fingerprints:
            c.notes.append(f"{dotted((*path, key))} is not used: tls_fingerprints decide")
    if table.tls_ca is not None and c.clean((*path, "tls_ca")) and c.file((*path, "tls_ca"), table.tls_ca):
        _authorities(c, (*path, "tls_ca"), table.tls_ca)
    if c.clean((*path, "tls_fingerprints")):
        for text in table.tls_fingerprints:
            if not _FINGERPRINT.fullmatch(text):
                digits = len(text.replace(":", ""))
                other = (
                    f"; this has the length of {_OTHER_DIGESTS[digits]}" if digits in _OTHER_DIGESTS else ""
                )
                rule = f"this is a certificate's SHA-256 fingerprint, 64 hexadecimal digits{other}"
                hint = "openssl x509 -noout -fingerprint -sha256 -in FILE"
                c.bad((*path, "tls_fingerprints"), rule, value=text, hint=hint)
    if table.tls_name and c.clean((*path, "tls_name")) and not is_domain(table.tls_name.removeprefix(".")):
        slip = table.tls_name.removeprefix("*")
        hint = f'write "{slip}"' if slip != table.tls_name and is_domain(slip.removeprefix(".")) else ""
        rule = 'this is a name in the certificate, or ".example.org" for any below that'
        c.bad((*path, "tls_name"), rule, value=table.tls_name, hint=hint)


def _authorities(c: Check, path: KeyPath, file: Path) -> None:
    if CREDENTIALS in file.parents and not file.exists():
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except ssl.SSLError:
        c.bad(path, "there is no certificate in this file that OpenSSL can read", value=display_path(file))


def _certificate(c: Check, path: KeyPath, table: NextHop) -> None:
    """Our own, with its key."""
    chain, key = (*path, "tls_certificate"), (*path, "tls_key")
    if table.tls_certificate is None:
        if table.tls_key is not None and c.clean(chain):
            c.bad(key, "this is the key of tls_certificate, and there is none", value=table.tls_key)
        return
    if c.clean(chain):
        c.file(chain, table.tls_certificate, secret=table.tls_key is None)
    if table.tls_key is not None and c.clean(key):
        c.file(key, table.tls_key, secret=True)
    if table.tls == "off":
        c.notes.append(f'{dotted(chain)} is not used: tls is "off"')


# --- AUTH ------------------------------------------------------------------------------------------------


def _login(c: Check, path: KeyPath, table: NextHop) -> None:
    """Name and password belong together, and go to nobody else."""
    user, file = (*path, "user"), (*path, "password_file")
    if not c.clean(user, file, (*path, "tls"), (*path, "auth_without_tls")):
        return
    if table.password_file is None:
        if table.user:
            c.bad(user, "its password is missing", value=table.user, hint="set password_file")
        elif table.auth_without_tls:
            c.notes.append(f"{dotted((*path, 'auth_without_tls'))} is not used: there is no user")
        return
    if not table.user:
        c.bad(file, "this is the password of `user`, and there is none", value=table.password_file)
        return
    if "\0" in table.user:
        c.bad(user, "a user's name has no NUL", value=table.user)
    if c.file(file, table.password_file, secret=True):
        _password(c, file, table.password_file)
    if table.verifies or table.unix:
        return
    if not table.auth_without_tls:
        rule = f'with tls = "{table.tls}" the password could go to anybody who passes for that server'
        hint = 'write tls = "required", or set auth_without_tls for a network that nobody else can hear'
        c.bad(user, rule, value=table.user, hint=hint)


def _password(c: Check, path: KeyPath, file: Path) -> None:
    octets = bytearray(MAX_PASSWORD_OCTETS + 2)
    try:
        with file.open("rb", buffering=0) as opened:
            del octets[opened.readinto(octets) :]
        password_length(octets)
    except OSError:
        return  # of systemd's, not there yet: said
    except ValueError as error:
        c.bad(path, str(error), value=display_path(file))
    finally:
        octets[:] = bytes(len(octets))  # master goes on to fork processes that need not have it
