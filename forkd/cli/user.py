"""forkd user: who may hand in mail with AUTH, when [auth] backend = "users"."""

from __future__ import annotations

import dataclasses
import os
import pwd
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from forkd.auth import passwords, senders, users
from forkd.auth.passwords import BadPassword
from forkd.auth.users import User, UsersError
from forkd.cli.failure import CommandFailed
from forkd.cli.lines import tell
from forkd.cli.options import config_option, json_option, print_json
from forkd.cli.tables import print_table
from forkd.config.load import load, users_file_of
from forkd.config.problems import ConfigError
from forkd.config.schema import Server
from forkd.exits import Exit

_F = TypeVar("_F", bound=Callable[..., Any])


@click.group()
def user() -> None:
    """Add, change, remove, list the users who authenticate.

    They stand in the file that [auth] users names. A running daemon sees every change at once. A password
    is asked for twice, or read as one line from standard input; it is never an argument, where other users
    of the machine could see it.
    """


def _password_option(function: _F) -> _F:
    return click.option(
        "--password-stdin", is_flag=True, help="Read the password, one line, from standard input."
    )(function)


def _scram_option(function: _F) -> _F:
    return click.option(
        "--scram/--no-scram",
        default=True,
        help="Keep a verifier for SCRAM-SHA-256 too; who steals the file guesses faster with it.",
    )(function)


def _address_option(function: _F) -> _F:
    return click.option(
        "--address",
        "-a",
        "addresses",
        multiple=True,
        metavar="ADDRESS",
        help="May send as this: name@domain, @domain for every name in it, * for everything. Repeatable. "
        "Default: the login itself, or in each of our domains.",
    )(function)


@user.command()
@click.argument("login")
@_address_option
@_scram_option
@_password_option
@config_option
def add(
    login: str, addresses: tuple[str, ...], scram: bool, password_stdin: bool, config: Path | None
) -> int:
    """Add the user LOGIN."""
    if problem := users.login_problem(login):
        raise CommandFailed(f"{problem}", status=Exit.USAGE)
    _check_addresses(addresses)
    path = users_file_of(config)
    if path.exists():
        _check_new(_read(path), login)
    # Asked before the file is held: people type slowly.
    argon2, verifier = _verifiers(_ask_twice(stdin=password_stdin), scram=scram)
    with _editing(config) as change:
        _check_new(change.users, login)
        change.put(User(login, argon2, verifier, addresses))
    tell(f"{login} added")
    return 0


@user.command()
@click.argument("login")
@_scram_option
@_password_option
@config_option
def passwd(login: str, scram: bool, password_stdin: bool, config: Path | None) -> int:
    """Give LOGIN another password."""
    _known(_read(users_file_of(config)), login)
    argon2, verifier = _verifiers(_ask_twice(stdin=password_stdin), scram=scram)
    with _editing(config) as change:
        known = _known(change.users, login)
        change.put(dataclasses.replace(known, argon2=argon2, scram=verifier))
    tell(f"{known.login} has a new password")
    return 0


@user.command()
@click.argument("login")
@_address_option
@click.option("--own-address", is_flag=True, help="May send as what is his by default, and nothing else.")
@click.option("--disable/--enable", default=None, help="A disabled user is answered as a wrong password is.")
@config_option
def change(
    login: str, addresses: tuple[str, ...], own_address: bool, disable: bool | None, config: Path | None
) -> int:
    """Change what LOGIN may: his addresses (all of them anew), whether he may come in at all."""
    _check_addresses(addresses)
    if not addresses and not own_address and disable is None:
        raise CommandFailed(
            "nothing to change", hint="--address, --own-address, --disable, --enable", status=Exit.USAGE
        )
    with _editing(config) as edit:
        known = _known(edit.users, login)
        if addresses or own_address:
            known = dataclasses.replace(known, addresses=() if own_address else addresses)
        if disable is not None:
            known = dataclasses.replace(known, disabled=disable)
        edit.put(known)
    tell(f"{known.login} changed")
    return 0


@user.command()
@click.argument("logins", nargs=-1, required=True, metavar="LOGIN...")
@config_option
def remove(logins: tuple[str, ...], config: Path | None) -> int:
    """Take users away; sessions in which they have authenticated may send no more mail."""
    with _editing(config) as change:
        for login in logins:
            change.remove(_known(change.users, login).login)
    tell(f"{', '.join(logins)} removed")
    return 0


@user.command("list")
@config_option
@json_option
def list_(config: Path | None, as_json: bool) -> int:
    """Who is there, and what each may."""
    known = _read(users_file_of(config))
    rows = [known[users.key(login)] for login in users.logins(known.values())]
    if as_json:
        print_json(
            {
                "users": [
                    {
                        "login": each.login,
                        "addresses": list(each.addresses),
                        "disabled": each.disabled,
                        "mechanisms": _mechanisms(each),
                    }
                    for each in rows
                ]
            }
        )
    elif not rows:
        tell("no users")
    else:
        print_table(
            ("login", "state", "sends as", "mechanisms"),
            [
                (
                    each.login,
                    "disabled" if each.disabled else "active",
                    ", ".join(each.addresses) or "his own address",
                    ", ".join(_mechanisms(each)),
                )
                for each in rows
            ],
        )
    return 0


@user.command()
@click.argument("login", required=False)
@_password_option
@config_option
@json_option
def check(login: str | None, password_stdin: bool, config: Path | None, as_json: bool) -> int:
    """Is the file right? With LOGIN: does a password fit?

    Exit status 0: it is, it does; 1: it is not, or the answer to AUTH would be 535.
    """
    path = users_file_of(config)
    known = _read(path)
    if login is None:
        if as_json:
            print_json({"ok": True, "file": str(path), "users": len(known)})
        else:
            tell(f"{path}: fine; {len(known)} user{'' if len(known) == 1 else 's'}")
        return 0
    found = known.get(users.key(login))
    password = _one_line() if password_stdin else _prompt(confirm=False)
    if found is None:
        raise CommandFailed(f"there is no user {login}")
    fits = (
        passwords.check_argon2(found.argon2, password)
        if found.argon2
        else found.scram is not None and passwords.check_scram(found.scram, password)
    )
    if not fits:
        raise CommandFailed("the password is wrong")
    if found.disabled:
        raise CommandFailed(f"the password is right, but {found.login} is disabled")
    if as_json:
        print_json({"ok": True, "login": found.login})
    else:
        tell("the password is right")
    return 0


def _mechanisms(each: User) -> list[str]:
    found = ["PLAIN", "LOGIN"] if each.argon2 or each.scram else []
    return [*found, "SCRAM-SHA-256"] if each.scram is not None else found


def _check_new(known: Mapping[str, User], login: str) -> None:
    if (other := known.get(users.key(login))) is not None:
        raise CommandFailed(f"there is a user {other.login} already", hint=f"forkd user passwd {other.login}")


def _known(all_users: Mapping[str, User], login: str) -> User:
    known = all_users.get(users.key(login))
    if known is None:
        raise CommandFailed(f"there is no user {login}", hint="forkd user list")
    return known


def _check_addresses(addresses: tuple[str, ...]) -> None:
    for address in addresses:
        if problem := senders.address_problem(address):
            raise CommandFailed(f"--address {address}: {problem}", status=Exit.USAGE)


def _read(path: Path) -> dict[str, User]:
    try:
        return users.read(path)
    except UsersError as error:
        hint = "" if path.exists() else "forkd user add LOGIN makes it"
        raise CommandFailed(str(error), hint=hint) from error


@contextmanager
def _editing(config: Path | None) -> Iterator[users.Edit]:
    try:
        with users.edit(users_file_of(config), owner=_owner(config)) as change:
            yield change
    except UsersError as error:
        raise CommandFailed(str(error)) from error


def _owner(config: Path | None) -> tuple[int, int] | None:
    """Of a new file that root makes: root's, and readable for the group of the workers."""
    if os.geteuid() != 0:
        return None
    try:
        name = load(config).config.server.user
    except ConfigError:
        # It is wrong, or only wants this very file.
        name = Server().user
    try:
        return 0, pwd.getpwnam(name).pw_gid
    except KeyError:
        return None


def _verifiers(password: str, *, scram: bool) -> tuple[str, passwords.Scram | None]:
    try:
        return passwords.make_argon2(password), passwords.make_scram(password) if scram else None
    except BadPassword as error:
        raise CommandFailed(f"that cannot be a password: {error}") from error


def _ask_twice(*, stdin: bool) -> str:
    return _one_line() if stdin else _prompt(confirm=True)


def _prompt(*, confirm: bool) -> str:
    if not sys.stdin.isatty():
        raise CommandFailed(
            "the password is asked for on a terminal", hint="--password-stdin reads it", status=Exit.USAGE
        )
    text: str = click.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True)
    return text


def _one_line() -> str:
    line = sys.stdin.readline(passwords.MAX_PASSWORD_BYTES + 2)
    return line.removesuffix("\n").removesuffix("\r")
