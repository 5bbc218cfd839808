"""Which recipients does the envelope name where the client's are aliases (worker/expansion.py)?"""

from __future__ import annotations

import pytest

from forkd.config.aliases import Member, key_of
from forkd.config.expansion import Expanded
from forkd.config.recipients import Accepted
from forkd.queue.envelope import Recipient
from forkd.smtp.address import Mailbox, split_address
from forkd.smtp.events import Mail
from forkd.worker import expansion
from forkd.worker.transaction import Destination, Transaction

LOCAL = Accepted("local", "x")
OWNER = "owner-list@a.org"
ORCPT = "rfc822;info@a.org"


def mailbox(address: str) -> Mailbox:
    return Mailbox(*split_address(address))


def to(address: str, *members: str, notify: str = "", orcpt: str = "", original: str = "") -> Destination:
    """A recipient; with members an alias, one written `*name@domain` being that of a list."""
    known = [Member(text.lstrip("*"), OWNER if text.startswith("*") else "") for text in members]
    table = {key_of(*split_address(member.address)): member for member in known}
    route = Expanded(table, frozenset({"local"})) if members else LOCAL
    told = tuple(notify.split(",")) if notify else ()
    return Destination(mailbox(address), route, told, orcpt, mailbox(original) if original else None)


def given(*destinations: Destination, null_sender: bool = False) -> list[Recipient]:
    return [*expansion.recipients(destinations, null_sender=null_sender)]


def member(address: str, **more) -> Recipient:
    return Recipient(address=address, original="info@a.org", **more)


ONE, TWO = ("a@a.org",), ("a@a.org", "b@b.org")
PARAMETERS = [
    ("one, nothing asked", ONE, "", [member("a@a.org")]),
    ("one, all asked", ONE, "SUCCESS,FAILURE", [member("a@a.org", notify=("SUCCESS", "FAILURE"))]),
    ("one, never", ONE, "NEVER", [member("a@a.org", notify=("NEVER",))]),
    ("several, nothing asked", TWO, "", [member("a@a.org"), member("b@b.org")]),
    ("several, never", TWO, "NEVER",
     [member("a@a.org", notify=("NEVER",)), member("b@b.org", notify=("NEVER",))]),
    ("several, success and delay", TWO, "SUCCESS,DELAY",
     [member("a@a.org", notify=("DELAY",)), member("b@b.org", notify=("DELAY",)),
      Recipient(address="info@a.org", notify=("SUCCESS",), orcpt=ORCPT, fate="expanded")]),
    ("several, success alone", TWO, "SUCCESS",
     [member("a@a.org", notify=("NEVER",)), member("b@b.org", notify=("NEVER",)),
      Recipient(address="info@a.org", notify=("SUCCESS",), orcpt=ORCPT, fate="expanded")]),
    ("list, nothing asked", ("*a@a.org", "*b@b.org"), "",
     [member("a@a.org", sender=OWNER), member("b@b.org", sender=OWNER)]),
    ("list, never", ("*a@a.org",), "NEVER", [member("a@a.org", sender=OWNER)]),
    ("list, success", ("*a@a.org",), "SUCCESS",
     [member("a@a.org", sender=OWNER),
      Recipient(address="info@a.org", notify=("SUCCESS",), orcpt=ORCPT, fate="delivered")]),
    ("a list and another", ("*a@a.org", "b@b.org"), "SUCCESS",
     [member("a@a.org", sender=OWNER), member("b@b.org", notify=("NEVER",)),
      Recipient(address="info@a.org", notify=("SUCCESS",), orcpt=ORCPT, fate="expanded")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("members", "notify", "becomes"), [row[1:] for row in PARAMETERS], ids=[row[0] for row in PARAMETERS]
)
def test_what_becomes_of_dsn_parameters(
    members: tuple[str, ...], notify: str, becomes: list[Recipient]
) -> None:
    """RFC 3461 5.2.7: one address takes all of them, several all but SUCCESS, a list none. ORCPT stays."""
    wanted = [
        one if one.sender or one.fate else Recipient(
            address=one.address, notify=one.notify, original=one.original, orcpt=ORCPT
        )
        for one in becomes
    ]  # fmt: skip
    assert given(to("info@a.org", *members, notify=notify, orcpt=ORCPT)) == wanted


def test_each_address_is_there_once_over_all_aliases() -> None:
    """In the order in which it was named first; whom the client named keeps his own parameters."""
    found = given(
        to("x@a.org", "a@a.org", "B@b.org"),
        to("y@a.org", "*b@B.org", "c@a.org"),
        to("C@a.org", notify="NEVER"),
        to("d@a.org"),
        to("D@a.org"),
    )
    assert found == [
        Recipient(address="a@a.org", original="x@a.org"),
        Recipient(address="B@b.org", original="x@a.org"),
        Recipient(address="C@a.org", notify=("NEVER",)),
        Recipient(address="d@a.org"),
    ]


def test_an_alias_of_one_who_is_there_already_is_reported_for_itself() -> None:
    """RFC 3461 4.1: each address that was named with SUCCESS is told of; the mail comes once."""
    found = given(
        to("x@a.org", "a@a.org", notify="SUCCESS"),
        to("y@a.org", "a@a.org", notify="SUCCESS"),
        to("z@a.org", "b@a.org", notify="SUCCESS,FAILURE"),
        to("b@a.org"),
    )
    assert found == [
        Recipient(address="a@a.org", notify=("SUCCESS",), original="x@a.org"),
        Recipient(address="b@a.org"),
        Recipient(address="y@a.org", notify=("SUCCESS",), fate="expanded"),
        Recipient(address="z@a.org", notify=("SUCCESS",), fate="expanded"),
    ]


def test_a_report_to_a_list_keeps_the_null_sender() -> None:
    """RFC 5321 4.5.5: what answers it by another report would begin a circle."""
    (found,) = given(to("list@a.org", "*a@a.org"), null_sender=True)
    assert found == Recipient(address="a@a.org", original="list@a.org")


def test_what_the_client_said_is_kept_through_a_plugin_too() -> None:
    """X-Original-To names the address that the sender wrote to."""
    found = given(to("info@a.org", "a@a.org", "b@a.org", original="said@a.org", notify="SUCCESS"))
    assert [one.original for one in found] == ["said@a.org"] * 3


def test_plugins_and_log_know_what_the_client_said() -> None:
    """The envelope alone has the members."""
    transaction = Transaction(Mail(mailbox("s@c.org")))
    said = to("info@a.org", *TWO)
    transaction.accept(said.mailbox, said.route)
    transaction.accept(mailbox("c@a.org"), LOCAL)
    assert [str(one.mailbox) for one in transaction.recipients] == ["info@a.org", "c@a.org"]
    envelope = transaction.envelope(received="", edits=(), received_at=1.0, session="S")
    assert [one.address for one in envelope.recipients] == ["a@a.org", "b@b.org", "c@a.org"]
    assert transaction.members == 2
