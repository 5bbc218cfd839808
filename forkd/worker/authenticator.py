"""Who knows the passwords, and which exchanges are under way? One Authenticator per worker.

What a session does with it, from AUTH to 235 or a refusal, is authentication.py's.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from forkd import log
from forkd.auth import backends, dovecot
from forkd.auth.backends import Backend, CheckpasswordBackend, DovecotBackend, UsersBackend
from forkd.auth.senders import Senders
from forkd.config.schema import Config
from forkd.hooks.dispatcher import Dispatcher
from forkd.rpc.calls import CallFailed, Overloaded
from forkd.smtp import sasl
from forkd.smtp.address import Mailbox
from forkd.worker.rates import Rates

if TYPE_CHECKING:
    from forkd.worker.services import Services
    from forkd.worker.session import Session

BEARER: Final = "OAUTHBEARER"


class ProgramHost(Protocol):
    """What is needed of forkd.sandbox.host.Host."""

    def run_program(
        self, plugin: str, *, fds: Mapping[int, int], timeout_s: float
    ) -> Coroutine[Any, Any, int]:
        """The wait status of one run. Raises CallFailed, Overloaded."""


class Authenticator:
    """One per worker: the backend, and the exchanges that are under way.

    host        runs a checkpassword program
    rates       counts failures, and says who had too many
    dispatcher  tells whether some plugin has the hook `auth`
    """

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        *,
        host: ProgramHost,
        rates: Rates,
        dispatcher: Dispatcher,
    ) -> None:
        self.config = config.auth
        self.rates = rates
        self.plugins = dispatcher.obeys("auth")
        self._loop = loop
        self._services: Services | None = None
        self.backend = self._backend(host)
        self._senders = Senders(config.domain)
        self._logins: dict[Session, Login] = {}

    def _backend(self, host: ProgramHost) -> Backend | None:
        config = self.config
        match config.backend:
            case "users":
                return UsersBackend(config.users, on_state=_state_of("users"))
            case "checkpassword":
                return CheckpasswordBackend(_running(host, float(config.timeout)))
            case "dovecot":
                assert config.dovecot is not None
                return DovecotBackend(
                    config.dovecot, on_mechanisms=self._offer, on_state=_state_of("dovecot")
                )
            case _:
                return None

    async def open(self, services: Services) -> None:
        """Before the first client: what the backend can do, `services` offers from now on.

        A backend in trouble is logged; every AUTH is answered 454 until it is well again.
        """
        self._services = services
        if self.backend is not None:
            await self.backend.open()

    async def close(self) -> None:
        """Let go of threads and connections."""
        if self.backend is not None:
            self.backend.close()

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """What can be offered now, in the order of auth.mechanisms; empty: there is nobody to ask."""
        can = frozenset[str]() if self.backend is None else self.backend.mechanisms
        if self.plugins:
            can |= backends.PASSWORD_MECHANISMS | {BEARER}
        return tuple(name for name in self.config.mechanisms if name in can)

    def _offer(self) -> None:
        """Dovecot said something new about its mechanisms: for sessions that begin from now on."""
        services = self._services
        if services is None or not self.mechanisms:
            return
        for name, listening in services.listeners.items():
            if listening.options.auth:
                options = dataclasses.replace(listening.options, auth=self.mechanisms)
                services.listeners[name] = dataclasses.replace(listening, options=options)

    # --- exchanges ------------------------------------------------------------------------------------

    def begin(self, session: Session, login: Login) -> None:
        """An exchange is under way; those of clients that went away in the middle are given up."""
        gone = [each for each in self._logins if each not in session.services.sessions]
        for each in (*gone, session):
            self.end(each)
        self._logins[session] = login

    def under_way(self, session: Session) -> Login:
        """The session's exchange; the engine lets a client answer only while there is one."""
        return self._logins[session]

    def end(self, session: Session) -> None:
        """The session's exchange is over."""
        login = self._logins.pop(session, None)
        if login is not None and login.proxied is not None:
            login.proxied.cancel()

    def may_send(self, user: str, sender: Mailbox) -> bool:
        """May this user send from this address (auth/senders.py)?"""
        addresses = () if self.backend is None else self.backend.addresses(user)
        if addresses is None:
            if not self.plugins:
                return False  # he was taken away while he is here
            addresses = ()
        return self._senders.may_send(user, addresses, sender.local, sender.domain)


@dataclasses.dataclass(slots=True, eq=False)
class Login:
    """One exchange.

    user     as the client named itself so far, for the log and the counts
    proxied  at Dovecot, whose mechanism it is
    proven   of SCRAM: who has proved to know the password, and only has to take our own proof
    """

    mechanism: str
    exchange: sasl.Exchange | None
    user: str = ""
    proxied: dovecot.Exchange | None = None
    proven: str = ""


def _state_of(backend: str) -> Callable[[log.AuthBackendAct, str], None]:
    """A change of the backend's state becomes a line of the log."""

    def tell(act: log.AuthBackendAct, reason: str) -> None:
        bad = act in ("unreadable", "unreachable", "lost")
        log.auth_backend(backend=backend, act=act, reason=reason, level="error" if bad else "info")

    return tell


def _running(host: ProgramHost, timeout_s: float) -> Callable[[Mapping[int, int]], Awaitable[int]]:
    async def program(descriptors: Mapping[int, int]) -> int:
        try:
            return await host.run_program(backends.CHECKPASSWORD, fds=descriptors, timeout_s=timeout_s)
        except (CallFailed, Overloaded) as error:
            raise OSError(str(error)) from error

    return program
