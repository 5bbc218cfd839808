"""Mail over SMTP to next hops on sockets: what each recipient's result is, whatever the servers say."""

from __future__ import annotations

import quopri
from pathlib import Path

import pytest

from forkd.deliver.pool import PoolLimits
from forkd.queue.envelope import Edit, Recipient
from tests.support.daemon import free_port
from tests.support.next_hop import DROP, EHLO, PLAIN, RESET, NextHop, Step, keywords
from tests.support.relaying import Told, a_delivery, a_way, delivered, on_loop
from tests.support.spooling import MAIL

BDAT = keywords("PIPELINING", "CHUNKING", "8BITMIME")
WAYS = pytest.mark.parametrize("ehlo", [PLAIN, EHLO, BDAT], ids=["plain", "pipe", "bdat"])


async def one_way(delivery, *servers: NextHop, **how) -> Told:
    """One delivery over those servers."""
    way = a_way(*servers, **how)
    try:
        return await delivered(way, delivery)
    finally:
        await way.close()


@WAYS
def test_a_message_arrives_as_it_is(tmp_path: Path, ehlo: Step) -> None:
    """Trace on top, edits made, CRLF, dots as they were; one transaction for all recipients."""

    async def main() -> None:
        edit = Edit(op="add_header", name="X-Seen", value="yes")
        delivery = a_delivery(tmp_path, "a@next.test", "b@next.test", edits=(edit,))
        async with NextHop({"EHLO": [ehlo]}) as server:
            told = await one_way(delivery, server)
            assert told.statuses == ["delivered", "delivered"]
            assert told.results[0].host == "127.0.0.1"
            assert told.results[0].reply is not None
            (mail,) = server.mails
        assert (mail.sender, mail.recipients) == ("sender@example.org", ["a@next.test", "b@next.test"])
        trace = delivery.message.envelope.trace.encode()
        assert mail.message == trace + b"X-Seen: yes\r\n" + MAIL

    on_loop(main())


def test_nothing_is_delivered_for_nobody(tmp_path: Path) -> None:
    """Each refusal is its recipient's; the others get the message."""

    async def main() -> None:
        delivery = a_delivery(tmp_path, "a@next.test", "b@next.test", "c@next.test")
        async with NextHop({"RCPT": [b"550 5.1.1 no", b"250 ok", b"450 4.2.1 busy"]}) as server:
            told = await one_way(delivery, server)
            assert told.statuses == ["failed", "delivered", "deferred"]
            assert told.codes == ["5.1.1", "2.0.0", "4.2.1"]
            assert told.away == [False] * 3
            assert told.results[0].text == "550 5.1.1 no (rcpt)"
            assert server.mails[0].recipients == ["b@next.test"]

    on_loop(main())


@pytest.mark.parametrize(
    ("moment", "said", "result"),
    [
        ("GREETING", b"554 5.7.1 not you", ("deferred", "4.7.1", True)),
        ("GREETING", b"450 busy", ("deferred", "4.3.2", True)),
        ("EHLO", b"450 4.7.0 later", ("deferred", "4.7.0", True)),
        ("MAIL", b"451 4.3.0 later", ("deferred", "4.3.0", False)),
        ("MAIL", b"550 5.1.8 who", ("failed", "5.1.8", False)),
        ("RCPT", b"450 greylisted", ("deferred", "4.2.0", False)),
        ("RCPT", b"550 no", ("failed", "5.0.0", False)),
        ("RCPT", b"552 5.2.2 full", ("failed", "5.2.2", False)),
        ("DATA", b"451 later", ("deferred", "4.3.0", False)),
        ("DATA", b"554 5.6.0 no", ("failed", "5.6.0", False)),
        (".", b"451 4.7.1 later", ("deferred", "4.7.1", False)),
        (".", b"554 5.7.1 spam", ("failed", "5.7.1", False)),
    ],
)
def test_a_refusal(tmp_path: Path, moment: str, said: bytes, result: tuple[str, str, bool]) -> None:
    """Temporary unless proven permanent; only who does not talk with us at all is away."""

    async def main() -> None:
        async with NextHop({moment: [said]}) as server:
            told = await one_way(a_delivery(tmp_path, "a@next.test"), server)
            assert (told.one.status, told.one.enhanced, told.one.away) == result
            assert server.mails == []

    on_loop(main())


@pytest.mark.parametrize("moment", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "BODY", "."])
@pytest.mark.parametrize("act", [b"421 4.3.2 bye", DROP, RESET, b"SSH-2.0-OpenSSH"], ids=str)
def test_the_next_hop_gets_what_the_first_one_did_not_take(tmp_path: Path, moment: str, act: Step) -> None:
    """A server that ends the connection, at whatever moment before it may have the message."""

    async def main() -> None:
        # More than sockets hold, where it must not have gone out whole.
        more = b"x" * 70 + b"\r\n"
        message = MAIL + more * (200_000 if moment == "BODY" else 1)
        delivery = a_delivery(tmp_path, "a@next.test", "b@next.test", message=message)
        step = act if act in (DROP, RESET) else (act, DROP)
        async with NextHop({moment: [step]}) as bad, NextHop() as good:
            told = await one_way(delivery, bad, good)
            if moment == "." and act != b"421 4.3.2 bye":
                # It may have it: nobody else gets it now.
                assert told.statuses == ["deferred", "deferred"]
                assert "twice" in told.results[0].text
                assert good.mails == []
            else:
                assert told.statuses == ["delivered", "delivered"]
                assert len(good.mails) == 1

    on_loop(main())


@pytest.mark.parametrize("moment", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "BODY", "."])
@pytest.mark.parametrize("act", [b"421 4.3.2 bye", DROP], ids=str)
def test_a_destination_that_ends_the_dialogue_is_away(tmp_path: Path, moment: str, act: Step) -> None:
    """421 is the server's own doing, not the message's; an end without a word, too, before the message is
    spoken of. Later that takes two messages."""

    async def main() -> None:
        people = ("a@next.test", "b@next.test")
        async with NextHop({moment: [act]}) as server:
            way = a_way(server)
            told = await delivered(way, a_delivery(tmp_path / "1", *people))
            assert told.statuses == ["deferred", "deferred"]
            assert told.away == [act != DROP or moment in ("GREETING", "EHLO")] * 2
            assert all(result.text for result in told.results)
            told = await delivered(way, a_delivery(tmp_path / "2", *people))
            assert told.away == [True, True]
            await way.close()

    on_loop(main())


@pytest.mark.parametrize("moment", ["BODY", "."])
def test_a_message_that_its_server_falls_over_keeps_no_other_waiting(tmp_path: Path, moment: str) -> None:
    """However often it is tried, the destination is not away for it; nor for two such, with other mail
    between them."""

    async def main() -> None:
        one, two = (a_delivery(tmp_path / each, "a@next.test") for each in ("1", "2"))
        well: Step = b"" if moment == "BODY" else b"250 2.0.0 taken"
        async with NextHop({moment: [DROP, DROP, well, DROP, DROP]}) as server:
            way = a_way(server, limits=PoolLimits(idle_s=0))
            for delivery, away in ((one, False), (one, False), (None, False), (two, False), (one, True)):
                told = await delivered(way, delivery or a_delivery(tmp_path / "3", "b@next.test"))
                assert told.one.status == ("deferred" if delivery else "delivered")
                assert told.one.away == away
            await way.close()

    on_loop(main())


def test_what_broke_off_here_and_is_down_there_is_not_away_for_it(tmp_path: Path) -> None:
    """The other host of the destination was not there to be asked."""

    async def main() -> None:
        async with NextHop({"BODY": [DROP]}) as server:
            told = await one_way(a_delivery(tmp_path, "a@next.test"), server, free_port())
            assert (told.one.status, told.one.away) == ("deferred", False)

    on_loop(main())


def test_a_server_that_drips_ends_some_time(tmp_path: Path) -> None:
    """Each reply comes in its time, and all of them together do not."""

    async def main() -> None:
        people = [f"u{number}@next.test" for number in range(100)]
        async with NextHop({"EHLO": [PLAIN]}, pause_s=0.1) as server:
            told = await one_way(a_delivery(tmp_path, *people), server, whole_s=3.0)
            assert set(told.statuses) == {"deferred"}
            assert "not done in all the time that it may take (rcpt at last)" in told.results[-1].text
            assert server.mails == []

    on_loop(main())


def test_the_reply_to_the_end_has_its_whole_wait(tmp_path: Path) -> None:
    """Or the mail would come twice."""

    async def main() -> None:
        async with NextHop({".": [b"250 2.0.0 taken"]}) as server:
            server.pauses["."] = 3.3
            told = await one_way(a_delivery(tmp_path, "a@next.test"), server, whole_s=3.0)
            assert told.statuses == ["delivered"]

    on_loop(main())


def test_a_server_that_ends_it_behind_its_answer_to_ehlo(tmp_path: Path) -> None:
    """In one packet: the connection has ended before it was begun."""

    async def main() -> None:
        async with NextHop({"EHLO": [b"250 mx\r\n421 4.3.2 bye"]}) as bad, NextHop() as good:
            told = await one_way(a_delivery(tmp_path, "a@next.test"), bad, good)
            assert told.one.status == "delivered"
            told = await one_way(a_delivery(tmp_path / "2", "a@next.test"), bad)
            assert (told.one.text, told.one.away) == ("421 4.3.2 bye (idle)", True)

    on_loop(main())


def test_nobody_listens(tmp_path: Path) -> None:
    """Deferred, away, and it says where."""

    async def main() -> None:
        port = free_port()
        told = await one_way(a_delivery(tmp_path, "a@next.test"), port)
        assert told.one.text == f"no connection to 127.0.0.1:{port}: connection refused"
        assert (told.one.status, told.one.enhanced, told.one.away) == ("deferred", "4.4.1", True)

    on_loop(main())


def test_a_hop_that_is_down_costs_the_next_one_nothing(tmp_path: Path) -> None:
    """In order, each tried once."""

    async def main() -> None:
        async with NextHop({"GREETING": [b"554 no"]}) as full, NextHop() as good, NextHop() as never:
            told = await one_way(a_delivery(tmp_path, "a@next.test"), free_port(), full, good, never)
            assert told.statuses == ["delivered"]
            assert (len(full.dialogues), len(good.mails), len(never.dialogues)) == (1, 1, 0)

    on_loop(main())


def test_a_hop_that_was_down_is_asked_last(tmp_path: Path) -> None:
    """The second mail does not wait for it; where no other is left, it is tried."""

    async def main() -> None:
        port = free_port()
        async with NextHop({"GREETING": [b"220 mx", b"220 mx", b"450 no"]}) as good:
            way = a_way(port, good, limits=PoolLimits(idle_s=0))
            told = [await delivered(way, a_delivery(tmp_path / "1", "a@next.test"))]
            async with NextHop(port=port) as back:
                told.append(await delivered(way, a_delivery(tmp_path / "2", "a@next.test")))
                assert back.dialogues == []
                told.append(await delivered(way, a_delivery(tmp_path / "3", "a@next.test")))
                assert len(back.mails) == 1
            assert [each.one.status for each in told] == ["delivered"] * 3

    on_loop(main())


def test_hosts_that_are_out_of_reach_at_once_do_not_count(tmp_path: Path) -> None:
    """Nobody waited for them: on a machine without IPv6 half of all addresses are such."""

    async def main() -> None:
        async with NextHop() as good:
            hops = [*(free_port() for _ in range(8)), good]
            told = await one_way(a_delivery(tmp_path, "a@next.test"), *hops)
            assert told.one.status == "delivered"

    on_loop(main())


def test_our_own_address_is_the_one_that_is_set(tmp_path: Path) -> None:
    """source_ipv4: what others see of us; one that this machine does not have is an error that says so."""

    async def main() -> None:
        async with NextHop() as server:
            await one_way(a_delivery(tmp_path, "a@next.test"), server, sources={4: "127.0.0.9"})
            assert server.dialogues[0].peer == "127.0.0.9"
            told = await one_way(a_delivery(tmp_path, "a@next.test"), server, sources={4: "192.0.2.1"})
            assert (told.one.status, told.one.away) == ("deferred", True)
            assert "assign requested address" in told.one.text

    on_loop(main())


def test_4xx_is_asked_of_one_more_hop(tmp_path: Path) -> None:
    """Who is refused for now there is tried at the next; two that say so are enough, and 5xx is final."""

    async def main() -> None:
        delivery = a_delivery(tmp_path, "a@next.test", "b@next.test", "c@next.test")
        first = {"RCPT": [b"250 ok", b"450 later", b"550 5.1.1 no"]}
        async with NextHop(first) as one, NextHop({"RCPT": [b"450 later"]}) as two, NextHop() as three:
            told = await one_way(delivery, one, two, three)
            assert told.statuses == ["delivered", "deferred", "failed"]
            assert told.away == [False] * 3
            assert [line for line in two.dialogues[0].heard if line.startswith(b"RCPT")] == [
                b"RCPT TO:<b@next.test> ORCPT=rfc822;b@next.test"
            ]
            assert three.dialogues == []

    on_loop(main())


def test_what_a_server_said_counts_more_than_one_that_is_down(tmp_path: Path) -> None:
    """The destination is not away: it has looked at the message."""

    async def main() -> None:
        async with NextHop({"RCPT": [b"450 4.7.1 greylisted"]}) as server:
            told = await one_way(a_delivery(tmp_path, "a@next.test"), server, free_port())
            assert told.one.text == "450 4.7.1 greylisted (rcpt)"
            assert not told.one.away

    on_loop(main())


def test_too_many_recipients_go_in_further_transactions(tmp_path: Path) -> None:
    """452 behind accepted ones: at once, on the same connection (RFC 5321 4.5.3.1.10)."""

    async def main() -> None:
        addresses = [f"u{n}@next.test" for n in range(7)]
        said: list[Step] = [b"250 ok", b"250 ok", b"452 4.5.3 too many", b"452 too many", b"552 too many",
                            b"452 4.5.3 too many", b"452 4.5.3 too many"]  # fmt: skip
        said += [b"250 ok"] * 3 + [b"452 4.5.3 too many"] * 2 + [b"250 ok"]
        async with NextHop({"RCPT": said}) as server:
            told = await one_way(a_delivery(tmp_path, *addresses), server)
            assert told.statuses == ["delivered"] * 7
            assert [mail.recipients for mail in server.mails] == [
                addresses[:2],
                addresses[2:5],
                addresses[5:],
            ]
            assert len(server.dialogues) == 1

    on_loop(main())


def test_452_for_everybody_is_for_later(tmp_path: Path) -> None:
    """No transaction after one that brought nothing."""

    async def main() -> None:
        async with NextHop({"RCPT": [b"452 4.5.3 too many"]}) as server:
            told = await one_way(a_delivery(tmp_path, "a@next.test", "b@next.test"), server)
            assert (told.statuses, told.codes) == (["deferred"] * 2, ["4.5.3"] * 2)
            assert server.dialogues[0].verbs().count("MAIL") == 1

    on_loop(main())


@pytest.mark.parametrize(
    ("ehlo", "most"), [(EHLO, 100), (keywords("PIPELINING", "LIMITS RCPTMAX=30"), 30)], ids=["rfc", "limits"]
)
def test_recipients_are_split_by_the_servers_limit(tmp_path: Path, ehlo: Step, most: int) -> None:
    """What it says (RFC 9422), or the hundred that each must take."""

    async def main() -> None:
        addresses = [f"u{n}@next.test" for n in range(130)]
        async with NextHop({"EHLO": [ehlo]}) as server:
            told = await one_way(a_delivery(tmp_path, *addresses), server)
            assert told.statuses == ["delivered"] * 130
            sizes = [len(mail.recipients) for mail in server.mails]
            assert sizes == [most] * (130 // most) + [130 % most]

    on_loop(main())


def test_domains_are_split_by_the_servers_limit(tmp_path: Path) -> None:
    """RCPTDOMAINMAX is a connection's (RFC 9422 4.3): for the next mail there is a new one."""

    async def main() -> None:
        people = ["a@x.test", "b@X.test", "c@y.test", "d@x.test", "e@z.test"]
        async with NextHop({"EHLO": [keywords("PIPELINING", "LIMITS RCPTDOMAINMAX=2")]}) as server:
            told = await one_way(a_delivery(tmp_path, *people), server)
            assert told.statuses == ["delivered"] * 5
            assert [[mail.recipients for mail in each.mails] for each in server.dialogues] == [
                [people[:4]],
                [people[4:]],
            ]

    on_loop(main())


def test_dsn_is_passed_on(tmp_path: Path) -> None:
    """RFC 3461 5.2.1: NOTIFY, ORCPT, RET, ENVID; ORCPT of whoever came without one."""

    async def main() -> None:
        recipients = (
            Recipient(address="a@next.test", notify=("SUCCESS", "FAILURE"), orcpt="rfc822;A+2Bx@old.test"),
            Recipient(address="b+c@next.test", notify=("NEVER",)),
            Recipient(address="d@next.test", original="said@old.test"),
            Recipient(address="e@next.test", original="list@old.test", sender="owner-list@old.test"),
        )
        delivery = a_delivery(tmp_path, recipients=recipients, ret="HDRS", envid="QQ+3D1")
        async with NextHop() as server:
            told = await one_way(delivery, server)
            assert all(result.passed_on and not result.relayed for result in told.results)
            heard = server.dialogues[0].heard
            assert heard[1].endswith(b" RET=HDRS ENVID=QQ+3D1")
            assert heard[2:6] == [
                b"RCPT TO:<a@next.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;A+2Bx@old.test",
                b"RCPT TO:<b+c@next.test> NOTIFY=NEVER ORCPT=rfc822;b+2Bc@next.test",
                b"RCPT TO:<d@next.test> ORCPT=rfc822;said@old.test",
                b"RCPT TO:<e@next.test> ORCPT=rfc822;e@next.test",
            ]
        async with NextHop({"EHLO": [keywords("PIPELINING")]}) as server:
            told = await one_way(delivery, server)
            assert all(result.relayed and not result.passed_on for result in told.results)
            assert server.dialogues[0].heard[1:3] == [
                b"MAIL FROM:<sender@example.org>",
                b"RCPT TO:<a@next.test>",
            ]

    on_loop(main())


def test_too_big_for_every_hop_fails(tmp_path: Path) -> None:
    """SIZE is asked of all of them; nothing is sent."""

    async def main() -> None:
        delivery = a_delivery(tmp_path, "a@next.test", message=MAIL + b"x\r\n" * 2000)
        small = keywords("SIZE 5000")
        async with NextHop({"EHLO": [small]}) as one, NextHop({"EHLO": [small]}) as two, NextHop() as big:
            told = await one_way(delivery, one, two)
            assert (told.one.status, told.one.enhanced) == ("failed", "5.3.4")
            told = await one_way(delivery, one, free_port())
            assert told.one.status == "deferred", "nobody knows what the other one takes"
            assert not told.one.away, "the first one works"
            told = await one_way(delivery, one, two, big)
            assert told.one.status == "delivered"
            assert one.mails == two.mails == []

    on_loop(main())


def test_addresses_beyond_ascii(tmp_path: Path) -> None:
    """A server without SMTPUTF8 gets the domain in ASCII; a local part that needs it fails, alone."""

    async def main() -> None:
        delivery = a_delivery(tmp_path, "a@bücher.example", "ü@next.test", "c@next.test", smtputf8=True)
        async with NextHop({"EHLO": [keywords("PIPELINING", "8BITMIME")]}) as server:
            told = await one_way(delivery, server)
            assert (told.statuses, told.codes[1]) == (["delivered", "failed", "delivered"], "5.6.7")
            assert server.mails[0].recipients == ["a@xn--bcher-kva.example", "c@next.test"]
        async with NextHop() as server:
            told = await one_way(delivery, server)
            assert told.statuses == ["delivered"] * 3
            assert server.dialogues[0].heard[1].endswith(b" SMTPUTF8")
            assert server.mails[0].recipients[0] == "a@bücher.example"

    on_loop(main())


@pytest.mark.parametrize("octets", [100, 100_000], ids=["small", "large"])
def test_a_header_beyond_ascii_needs_smtputf8_where_it_was_asked_for(tmp_path: Path, octets: int) -> None:
    """RFC 6531 3.4; a raw header without it is old practice, and goes on."""

    async def main() -> None:
        message = "Subject: Grüße\r\n\r\n".encode() + b"x\r\n" * (octets // 3)
        async with NextHop({"EHLO": [keywords("8BITMIME")]}) as server:
            asked = a_delivery(tmp_path / "1", "a@next.test", message=message, smtputf8=True)
            told = await one_way(asked, server)
            assert (told.one.status, told.one.enhanced) == ("failed", "5.6.7")
            assert told.one.host == "", "a report would call our words the server's"
            plain = a_delivery(tmp_path / "2", "a@next.test", message=message)
            assert (await one_way(plain, server)).one.status == "delivered"
            unneeded = a_delivery(tmp_path / "3", "a@next.test", message=b"x\r\n" * octets, smtputf8=True)
            assert (await one_way(unneeded, server)).one.status == "delivered"

    on_loop(main())


def test_the_null_sender_and_size(tmp_path: Path) -> None:
    """MAIL FROM:<>, and SIZE as it goes out."""

    async def main() -> None:
        async with NextHop({"EHLO": [keywords("SIZE")]}) as server:
            await one_way(a_delivery(tmp_path, "a@next.test", sender=""), server)
            (mail,) = server.mails
            assert server.dialogues[0].heard[1] == b"MAIL FROM:<> SIZE=%d" % len(mail.message)

    on_loop(main())


def test_an_address_that_no_command_can_have_fails_alone(tmp_path: Path) -> None:
    """A plugin or an alias may have made it; nothing of it gets to the server."""

    async def main() -> None:
        delivery = a_delivery(tmp_path, "a b@next.test", "c@next.test")
        async with NextHop() as server:
            told = await one_way(delivery, server)
            assert (told.statuses, told.codes[0]) == (["failed", "delivered"], "5.1.3")
            told = await one_way(a_delivery(tmp_path / "2", "c@next.test", sender="x>\r\nDATA"), server)
            assert (told.one.status, told.one.enhanced) == ("failed", "5.1.7")

    on_loop(main())


def test_a_domain_that_is_too_long_in_ascii_needs_smtputf8(tmp_path: Path) -> None:
    """Its A-labels, with this local part, are more than a path may have (RFC 5321 4.5.3.1.3)."""

    async def main() -> None:
        long = f"{'l' * 90}@{'.'.join('中' * 30)}.test"
        async with NextHop({"EHLO": [PLAIN]}) as seven, NextHop() as eight:
            for delivery in (
                a_delivery(tmp_path / "1", long, smtputf8=True),
                a_delivery(tmp_path / "2", "a@next.test", sender=long, smtputf8=True),
            ):
                told = await one_way(delivery, seven)
                assert (told.one.status, told.one.enhanced) == ("failed", "5.6.7")
                assert (await one_way(delivery, eight)).one.status == "delivered"

    on_loop(main())


def test_a_server_that_knows_helo_alone(tmp_path: Path) -> None:
    """EHLO refused: HELO, and no parameters."""

    async def main() -> None:
        async with NextHop({"EHLO": [b"502 what"]}) as server:
            told = await one_way(a_delivery(tmp_path, "a@next.test"), server)
            assert told.one.status == "delivered"
            assert server.dialogues[0].verbs()[:3] == ["EHLO", "HELO", "MAIL"]

    on_loop(main())


@pytest.mark.parametrize("octets", [100, 300_000], ids=["small", "large"])
def test_eight_bits_become_seven_for_a_server_without_8bitmime(tmp_path: Path, octets: int) -> None:
    """As Postfix does; where it is offered they go as they are."""

    async def main() -> None:
        message = b"Subject: x\r\n\r\n" + "grüße\r\n".encode() * (octets // 9)
        delivery = a_delivery(tmp_path, "a@next.test", message=message)
        async with NextHop({"EHLO": [keywords("SIZE")]}) as seven, NextHop() as eight:
            assert (await one_way(delivery, seven)).one.status == "delivered"
            assert b"BODY" not in seven.dialogues[0].heard[1]
            assert seven.mails[0].message.isascii()
            _, _, body = seven.mails[0].message.partition(b"\r\n\r\n")
            assert quopri.decodestring(body) == message.partition(b"\r\n\r\n")[2]
            assert (await one_way(delivery, eight)).one.status == "delivered"
            assert eight.dialogues[0].heard[1].endswith(b" BODY=8BITMIME")
            assert eight.mails[0].message.endswith(message)

    on_loop(main())
