"""Can AUTH be used where it is on, and is it on where it must be?"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from forkd.config.addresses import parse_address
from forkd.config.checking import Check
from forkd.config.lines import KeyPath
from forkd.config.problems import display_path, toml_key
from forkd.config.schema import Auth, Config, Listener, PluginConfig

_PASSWORD_ONLY: Final = ("PLAIN", "LOGIN")
"""Mechanisms that show the password itself: all that a checkpassword program can work with."""


def wants_auth(listener: Listener) -> bool:
    """AUTH is on there: by itself, or by the role."""
    return listener.auth == "on" or (listener.auth == "auto" and listener.role == "submission")


def has_tls(config: Config, listener: Listener) -> bool:
    """A client may speak TLS there."""
    return listener.tls != "off" and bool(config.certificate)


def _auth(c: Check) -> None:
    """AUTH is on where it must be, and can be used where it is on."""
    config = c.config
    for name, listener in config.listener.items():
        path: KeyPath = ("listener", name)
        if not c.clean(
            *((*path, key) for key in ("role", "auth", "tls", "auth_without_tls")), ("certificate",)
        ):
            continue
        if not wants_auth(listener):
            if listener.role == "submission":
                rule = "submission takes mail from who has authenticated: without AUTH it takes none"
                c.bad((*path, "auth"), rule, value=listener.auth, hint='write "on", or leave the key out')
            elif listener.auth_without_tls:
                c.notes.append(f"listener.{toml_key(name)}.auth_without_tls is not used: AUTH is off there")
        elif listener.auth_without_tls:
            if _public(listener.address):
                c.notes.append(f"listener.{toml_key(name)}: passwords may cross the network in the clear")
        elif not has_tls(config, listener):
            key, value = ("auth", listener.auth) if listener.auth == "on" else ("role", listener.role)
            rule = "AUTH waits for TLS, and this listener speaks none"
            hint = "give it a [certificate], or set auth_without_tls for a network that nobody else can hear"
            c.bad((*path, key), rule, value=value, hint=hint)


def _backend(c: Check) -> None:
    """The backend has what it needs; what only another one needs is said."""
    auth = c.config.auth
    if not c.clean(("auth", "backend")):
        return
    for key in ("users", "checkpassword", "dovecot"):
        path: KeyPath = ("auth", key)
        if auth.backend == key:
            if c.clean(path):
                _BACKENDS[key](c, path, auth)
        elif c.given(path):
            c.notes.append(f'auth.{key} is not used: auth.backend is "{auth.backend}"')
    if auth.files and auth.backend != "checkpassword":
        c.notes.append("auth.files is not used: only a checkpassword program needs it")
    if auth.backend != "none" and not any(map(wants_auth, c.config.listener.values())):
        c.notes.append("auth.backend is not used: no listener has AUTH on")


def _users(c: Check, path: KeyPath, auth: Auth) -> None:
    c.file(path, auth.users, secret=True, hint="`forkd user add NAME` makes it")


def _checkpassword(c: Check, path: KeyPath, auth: Auth) -> None:
    if not auth.checkpassword:
        c.bad(path, 'backend = "checkpassword" needs the program', hint='write ["/usr/bin/checkpassword"]')
        return
    program = Path(auth.checkpassword[0])
    if not program.is_absolute():
        c.bad(path, "the program is named by its whole path, from / on", value=str(program))
    elif c.file(path, program) and not os.access(program, os.X_OK):
        c.bad(path, "this program may not be executed", value=program, hint="chmod +x it")
    for file in auth.files:
        if c.clean(("auth", "files")) and not file.exists():
            c.bad(("auth", "files"), "there is no such file", value=file)
    if c.clean(("auth", "mechanisms")) and not set(_PASSWORD_ONLY) & set(auth.mechanisms):
        rule = "a checkpassword program needs the password itself: PLAIN or LOGIN"
        c.bad(("auth", "mechanisms"), rule, value=auth.mechanisms)


def _dovecot(c: Check, path: KeyPath, auth: Auth) -> None:
    """Dovecot that is down is no reason not to start: AUTH is then answered 454."""
    if auth.dovecot is None:
        c.bad(path, 'backend = "dovecot" needs its socket', hint='write "/run/dovecot/auth-client"')
        return
    try:
        mode = auth.dovecot.stat().st_mode
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        c.notes.append(f"auth.dovecot: {display_path(auth.dovecot)} could not be looked at: {said}")
        return
    if not stat.S_ISSOCK(mode):
        c.bad(path, "this is no socket", value=auth.dovecot)


_BACKENDS: Final[dict[str, Callable[[Check, KeyPath, Auth], None]]] = {
    "users": _users,
    "checkpassword": _checkpassword,
    "dovecot": _dovecot,
}


def _submission(c: Check) -> None:
    """Users of submission want to write to the world."""
    relay = c.config.queue.relay_transport
    if any(listener.role == "submission" for listener in c.config.listener.values()) and not relay:
        c.notes.append(
            "queue.relay_transport is not set: users of submission can write to domains of ours only"
        )


AUTH_CHECKS: Final[tuple[Callable[[Check], None], ...]] = (_auth, _backend, _submission)


def auth_with_plugins(c: Check, plugins: tuple[PluginConfig, ...]) -> None:
    """Somebody knows the passwords: the backend, or a plugin that is on."""
    config = c.config
    by_plugin = any(plugin.powers.auth and plugin.mode == "enforce" for plugin in plugins)
    if config.auth.backend == "none" and not by_plugin and c.clean(("auth", "backend")):
        for name, listener in config.listener.items():
            if wants_auth(listener) and c.clean(("listener", name)):
                key, value = ("auth", "on") if listener.auth == "on" else ("role", listener.role)
                rule = (
                    "AUTH is on, and nobody knows the passwords: neither auth.backend nor a plugin with auth"
                )
                c.bad(("listener", name, key), rule, value=value, hint='write backend = "users" in [auth]')
    if "OAUTHBEARER" in config.auth.mechanisms and not by_plugin and c.clean(("auth", "mechanisms")):
        rule = "OAUTHBEARER is answered by plugins with the power auth, and none is on"
        c.bad(("auth", "mechanisms"), rule, value=config.auth.mechanisms)


def _public(address: str) -> bool:
    try:
        return not ipaddress.ip_address(parse_address(address)[0]).is_loopback
    except ValueError:
        return False
