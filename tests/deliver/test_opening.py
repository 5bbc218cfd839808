"""TLS and login with next hops: what is demanded holds, and what was said in clear does not count after."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from pathlib import Path

import pytest

from forkd.deliver.client_tls import ClientTls
from forkd.deliver.connection import Connection
from forkd.deliver.hosts import Hop
from forkd.smtp.client import ClientConnection
from forkd.smtp.client_events import Closed
from forkd.smtp.client_phases import ClientOptions, Phase
from forkd.smtp.client_sasl import Credentials
from tests.support.next_hop import DROP, RESET, STALL, NextHop, Step, keywords
from tests.support.pki import Authority
from tests.support.relaying import Told, a_delivery, a_way, delivered, on_loop

OFFERS = keywords("PIPELINING", "STARTTLS")
HOP = Hop("127.0.0.1", "127.0.0.1", 465)
PLAIN_LOGIN = base64.b64encode(b"\0user\0secret")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def right(authority: Authority) -> ssl.SSLContext:
    """Of a server that is 127.0.0.1."""
    return server_context(authority, "127.0.0.1")


@pytest.fixture
def tls(authority: Authority, right: ssl.SSLContext) -> tuple[ClientTls, ssl.SSLContext]:
    """Of both sides, where it is required."""
    return required(authority), right


def server_context(authority: Authority, name: str) -> ssl.SSLContext:
    pair = authority.pair(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.chain, pair.key)
    return context


def required(authority: Authority, mode: str = "required") -> ClientTls:
    return ClientTls(mode, authorities=authority.file.read_text())  # type: ignore[arg-type]


async def one_mail(folder: Path, *servers: NextHop, **how) -> Told:
    way = a_way(*servers, **how)
    told = await delivered(way, a_delivery(folder, "a@next.test"))
    await way.close()
    return told


@pytest.mark.parametrize("mode", ["opportunistic", "required"])
def test_starttls(tmp_path: Path, authority: Authority, right: ssl.SSLContext, mode: str) -> None:
    """The mail goes under TLS, behind a second EHLO; the connection is used again."""

    async def main() -> None:
        async with NextHop({"EHLO": [OFFERS]}, tls=right) as server:
            way = a_way(server, tls=required(authority, mode))
            for part in "12":
                told = await delivered(way, a_delivery(tmp_path / part, "a@next.test"))
                assert told.one.status == "delivered"
            await way.close()
            (dialogue,) = server.dialogues
            assert dialogue.tls
            assert dialogue.verbs()[:4] == ["EHLO", "STARTTLS", "EHLO", "MAIL"]

    on_loop(main())


def test_tls_from_the_first_octet(tmp_path: Path, authority: Authority, right: ssl.SSLContext) -> None:
    """RFC 8314; a large message too."""

    async def main() -> None:
        async with NextHop(tls=right, implicit=True, keep=False) as server:
            way = a_way(server, tls=required(authority, "implicit"))
            message = b"Subject: big\r\n\r\n" + (b"x" * 1022 + b"\r\n") * 3000
            told = await delivered(way, a_delivery(tmp_path, "a@next.test", message=message))
            await way.close()
            assert told.one.status == "delivered"
            assert server.dialogues[0].octets > 3_000_000

    on_loop(main())


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ({"EHLO": [keywords("PIPELINING")]}, "offers none"),
        ({"STARTTLS": [b"454 4.7.0 not now"]}, "454 4.7.0 not now"),
        ({"STARTTLS": [b"502 5.5.1 what"]}, "502 5.5.1 what"),
        ({"TLS": [DROP]}, "TLS with 127.0.0.1:"),
        ({"TLS": [RESET]}, "TLS with 127.0.0.1:"),
        ({"TLS": [(b"250 no TLS at all", STALL)]}, "TLS with 127.0.0.1:"),
        ({"TLS": [STALL]}, "took too long"),
    ],
    ids=["absent", "4xx", "5xx", "drop", "reset", "clear", "stall"],
)
@pytest.mark.parametrize("mode", ["required", "opportunistic"])
def test_no_tls(
    tmp_path: Path, authority: Authority, script: dict[str, list[Step]], why: str, mode: str
) -> None:
    """Required: no mail, deferred, away. Opportunistic: in the clear, on a new connection where TLS broke
    this one."""

    async def main() -> None:
        async with NextHop({"EHLO": [OFFERS], **script}) as server:
            told = await one_mail(tmp_path, server, tls=required(authority, mode), waits={Phase.TLS: 0.3})
            if mode == "opportunistic":
                assert told.one.status == "delivered"
                assert len(server.dialogues) == (2 if "TLS" in script else 1)
                assert not server.dialogues[-1].tls
            else:
                assert (told.one.status, told.one.away) == ("deferred", True)
                assert told.one.enhanced.startswith("4.")
                assert why in told.one.text
                assert server.mails == []

    on_loop(main())


def test_a_wrong_certificate(tmp_path: Path, authority: Authority) -> None:
    """Required: another name's, or another authority's, is none; the next hop is tried."""

    async def main() -> None:
        strange = Authority(tmp_path)
        for context in (server_context(authority, "other.example"), server_context(strange, "127.0.0.1")):
            async with NextHop({"EHLO": [OFFERS]}, tls=context) as wrong:
                told = await one_mail(tmp_path / str(wrong.port), wrong, tls=required(authority))
                assert (told.one.status, told.one.enhanced, told.one.away) == ("deferred", "4.7.5", True)
                assert "certificate" in told.one.text
                assert wrong.mails == []
                # Without demands it will do.
                any_tls = ClientTls("opportunistic")
                told = await one_mail(tmp_path / f"{wrong.port}-any", wrong, tls=any_tls)
                assert told.one.status == "delivered"
                assert wrong.dialogues[-1].tls

    on_loop(main())


def test_what_was_said_before_tls_is_not_believed_after(
    tmp_path: Path, authority: Authority, right: ssl.SSLContext
) -> None:
    """What EHLO offered in the clear may be anybody's; the second one counts."""

    async def main() -> None:
        clear = keywords("STARTTLS", "DSN", "SIZE 1", "AUTH PLAIN", "PIPELINING")
        async with NextHop({"EHLO": [clear, keywords("8BITMIME")]}, tls=right) as server:
            told = await one_mail(tmp_path, server, tls=required(authority))
            assert (told.one.status, told.one.relayed) == ("delivered", True)
            assert server.dialogues[0].heard[3] == b"MAIL FROM:<sender@example.org>"

    on_loop(main())


@pytest.mark.parametrize("mode", ["required", "opportunistic"])
@pytest.mark.parametrize("mine", [b"250 mine", b"250-SIZE 1"], ids=["whole", "half"])
def test_octets_injected_behind_starttls_end_it(
    tmp_path: Path, authority: Authority, right: ssl.SSLContext, mine: bytes, mode: str
) -> None:
    """Replies that somebody put there in the clear, to be read under TLS (CVE-2011-0411, for a client); also
    the beginning of one, to which the server itself would say the rest."""

    async def main() -> None:
        script: dict[str, list[Step]] = {"EHLO": [OFFERS], "STARTTLS": [b"220 go\r\n" + mine]}
        async with NextHop(script, tls=right) as server:
            told = await one_mail(tmp_path, server, tls=required(authority, mode))
            assert (told.one.status, told.one.away) == ("deferred", True)
            assert "clear behind" in told.one.text
            assert server.mails == []

    on_loop(main())


@pytest.mark.parametrize("mode", ["required", "opportunistic"])
def test_half_an_answer_before_starttls_ends_it(
    tmp_path: Path, authority: Authority, right: ssl.SSLContext, mode: str
) -> None:
    """It ends there and then, though the server says no more."""

    async def main() -> None:
        script: dict[str, list[Step]] = {"EHLO": [(b"\r\n".join((*OFFERS, b"220-half")), STALL)]}
        async with NextHop(script, tls=right) as server:
            told = await asyncio.wait_for(one_mail(tmp_path, server, tls=required(authority, mode)), 20)
            assert (told.one.status, told.one.away) == ("deferred", True)
            assert "clear before STARTTLS" in told.one.text
            await server.all_over()

    on_loop(main())


def test_octets_before_implicit_tls_are_nobodys(authority: Authority) -> None:
    """A greeting in the clear, or more, would be answers to what is asked under TLS."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.sendall(b"220 mine\r\n250 mine\r\n")
            theirs.shutdown(socket.SHUT_WR)
            made = Connection(ClientConnection(ClientOptions(hostname="client.test"), secure=True))
            await asyncio.get_running_loop().create_connection(lambda: made, sock=ours)
            said = await made.next_event()
            assert isinstance(said, Closed)
            tls = required(authority, "implicit")
            why = await made.start_tls(tls.context(HOP), name=HOP.name)
            assert why == said.why == "octets in the clear before TLS"

    on_loop(main())


@pytest.mark.parametrize("mode", ["required", "opportunistic"])
def test_a_server_that_leaves_behind_the_handshake(
    tmp_path: Path, authority: Authority, right: ssl.SSLContext, mode: str
) -> None:
    """With TLS 1.3 the client is done first, and what the server did not like of it comes later."""

    async def main() -> None:
        async with NextHop({"EHLO": [OFFERS, DROP, OFFERS]}, tls=right) as server:
            told = await one_mail(tmp_path, server, tls=required(authority, mode))
            if mode == "required":
                assert (told.one.status, told.one.away) == ("deferred", True)
                assert "behind the TLS handshake" in told.one.text
                assert server.mails == []
            else:
                assert told.one.status == "delivered"
                assert not server.dialogues[-1].tls

    on_loop(main())


# --- login -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offers", "said", "error"),
    [
        ("AUTH PLAIN LOGIN", b"235 2.7.0 ok", ("", "")),
        ("AUTH PLAIN", b"535 5.7.8 wrong", ("4.7.8", "535 5.7.8 wrong")),
        ("AUTH PLAIN", b"454 4.7.0 later", ("4.7.0", "454 4.7.0 later")),
        ("AUTH PLAIN", DROP, ("4.4.2", "closed the connection")),
        ("AUTH GSSAPI", b"", ("4.7.0", "it offers GSSAPI")),
        ("SIZE", b"", ("4.7.0", "it offers no AUTH")),
    ],
    ids=["ok", "wrong", "later", "drop", "mechanism", "none"],
)
def test_login(
    tmp_path: Path, tls: tuple[ClientTls, ssl.SSLContext], offers: str, said: Step, error: tuple[str, str]
) -> None:
    """Under TLS; a server that does not let us in is away, and has no mail of us."""

    async def main() -> None:
        script: dict[str, list[Step]] = {"EHLO": [OFFERS, keywords(offers)], "AUTH": [said]}
        async with NextHop(script, tls=tls[1]) as server:
            told = await one_mail(tmp_path, server, tls=tls[0], credentials=Credentials("user", "secret"))
            code, text = error
            if not code:
                assert told.one.status == "delivered"
                assert server.dialogues[0].heard[3] == b"AUTH PLAIN " + PLAIN_LOGIN
                assert b"AUTH=" not in server.dialogues[0].heard[4]
            else:
                assert (told.one.status, told.one.away) == ("deferred", True)
                assert told.one.enhanced == code
                assert text in told.one.text
                assert told.one.reply is None  # no client's that waits, nor a sender's
                assert server.mails == []

    on_loop(main())


def test_no_password_in_the_clear(tmp_path: Path) -> None:
    """Unless the admin allows it."""

    async def main() -> None:
        credentials = Credentials("user", "secret")
        script: dict[str, list[Step]] = {"EHLO": [keywords("AUTH PLAIN LOGIN")], "AUTH": [b"235 ok"]}
        async with NextHop(script) as server:
            told = await one_mail(tmp_path / "1", server, credentials=credentials)
            assert "offers PLAIN LOGIN without TLS" in told.one.text
            assert "AUTH" not in server.dialogues[0].verbs()
            told = await one_mail(
                tmp_path / "2", server, credentials=credentials, options={"auth_needs_tls": False}
            )
            assert told.one.status == "delivered"

    on_loop(main())


def test_a_cancelled_opening_leaves_nothing_open(tmp_path: Path) -> None:
    """qmgr stops while a greeting is waited for."""

    async def main() -> None:
        async with NextHop({"GREETING": [STALL]}) as server:
            way = a_way(server)
            task = asyncio.create_task(delivered(way, a_delivery(tmp_path, "a@next.test")))
            await server.until(lambda: server.dialogues)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.all_over()
            await way.close()

    on_loop(main())
