"""What the end of a queue program means (deliver/qmail_exits.py): qmail's table, and what a client hears."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.deliver.programs import Ending, Fed, Took
from forkd.deliver.qmail_exits import Meaning, meaning


def after(
    status: int, said: bytes = b"", *, text: bytes = b"", first: Took = "all", second: Took = "all"
) -> Meaning:
    return meaning(Fed(Ending(status), first, second, said, text))


def told(end: Meaning) -> str:
    assert end.reply is not None
    return end.reply.encode().decode()


PERMANENT = {11: "5.1.3", 115: "5.1.3", 31: "5.3.0", 32: "5.7.1", 33: "5.7.1", 34: "5.7.1", 35: "5.3.5"}
PERMANENT |= dict.fromkeys((*range(12, 31), *range(36, 41)), "5.3.0")
TEMPORARY = dict.fromkeys(
    [code for code in range(1, 256) if code not in PERMANENT and code != 88], "4.3.0"
) | {72: "4.4.1", 73: "4.4.1", 74: "4.4.2", 87: "4.3.5"}


def test_zero_is_taken() -> None:
    assert after(0) == Meaning("delivered", "2.0.0", "taken by the queue program")


def test_permanent_are_11_to_40_and_115() -> None:
    """Every one of them: 554, with the table's enhanced code."""
    for code, enhanced in PERMANENT.items():
        end = after(code)
        assert (end.status, end.enhanced, told(end)[:9]) == ("failed", enhanced, f"554 {enhanced}"), code


def test_every_other_code_is_temporary() -> None:
    """Known or not (1 to 10, 99, 100, 111, 255): 451."""
    for code, enhanced in TEMPORARY.items():
        end = after(code)
        assert (end.status, end.enhanced, told(end)[:9]) == ("deferred", enhanced, f"451 {enhanced}"), code


def test_zero_counts_only_for_a_program_that_took_all() -> None:
    """One that did not read the message, or all of an envelope that it began, can have queued nothing. One
    that read the message alone has dropped it: so do IndiMail's filters, told to."""
    for first, second in (("nothing", "nothing"), ("part", "nothing"), ("nothing", "all"), ("all", "part")):
        end = after(0, first=first, second=second)  # type: ignore[arg-type]
        assert (end.status, end.text[:14]) == ("deferred", "exit status 0,"), (first, second)
    assert after(31, first="nothing", second="nothing").status == "failed", "who refuses need not read"
    dropped = after(0, second="nothing")
    assert dropped.status == "delivered"
    assert dropped.text.startswith("dropped by the queue program")


@pytest.mark.parametrize(
    ("said", "status", "reply"),
    [
        (b"DNot today", "failed", "554 5.3.0 Not today\r\n"),
        (b"ZNot now\n", "deferred", "451 4.3.0 Not now\r\n"),
        (b"DListed (#5.7.1)", "failed", "554 5.7.1 Listed\r\n"),
        (b"DListed (#4.7.1)", "failed", "554 5.3.0 Listed (#4.7.1)\r\n"),
        (b"noise\nDThe last line counts", "failed", "554 5.3.0 The last line counts\r\n"),
        (b"DThe first\nZThe last", "deferred", "451 4.3.0 The last\r\n"),
        (b"Da\r\n250 ok\x00\r\nDinjected \xff\x07", "failed", "554 5.3.0 injected ??\r\n"),
    ],
    ids=["D", "Z", "enhanced", "other class", "last line", "last letter", "control octets"],
)
def test_88_brings_the_text_for_the_client(said: bytes, status: str, reply: str) -> None:
    end = after(88, said)
    assert (end.status, told(end)) == (status, reply)


def test_notqmails_82_brings_one_too() -> None:
    """From descriptor 6 alone, as 88's is from 2 alone; without a text it is the table's 82."""
    assert told(after(82, text=b"Dvirus found\n")) == "554 5.3.0 virus found\r\n"
    assert after(82).text == "exit status 82: cannot execute the queue program"
    for end in (after(82, b"Dcannot open /etc/keys"), after(88, text=b"Dnot its own")):
        assert (end.status, told(end)[:9]) == ("deferred", "451 4.3.0")


@pytest.mark.parametrize("said", [b"", b"D", b"Zx", b"D   \n", b"panic at 0x1234"])
def test_88_without_such_a_text_is_temporary(said: bytes) -> None:
    """Three octets at least, the first one D or Z; anything else is no text for a client."""
    end = after(88, said)
    assert end.status == "deferred"
    assert told(end) == "451 4.3.0 Cannot take this mail now, please try again later\r\n"


def test_the_log_has_what_the_client_must_not_see() -> None:
    """Text on descriptor 2 with any other exit status is the program's own talk."""
    end = after(53, b"write error on /var/qmail/queue/mess/7\nsecond line")
    assert (
        "53: write error or disk full; it said: write error on /var/qmail/queue/mess/7 / second" in end.text
    )
    assert "/var" not in told(end)


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        (Ending(-11), "killed by SIGSEGV"),
        (Ending(-99), "killed by signal 99"),
        (Ending(-9, late=True), "did not end in time"),
        (Ending(error="/no/such: No such file or directory"), "could not be started: /no/such"),
    ],
    ids=["signal", "no signal's name", "late", "not started"],
)
def test_a_program_that_did_not_end_by_itself_is_temporary(ending: Ending, text: str) -> None:
    end = meaning(Fed(ending, "all", "all"))
    assert (end.status, end.enhanced) == ("deferred", "4.3.0")
    assert text in end.text
    assert told(end) == "451 4.3.0 Cannot take this mail now, please try again later\r\n"


@given(
    st.integers(-64, 255),
    st.binary(max_size=1200),
    st.binary(max_size=1200),
    st.sampled_from(("all", "part", "nothing")),
)
def test_whatever_a_program_says_the_reply_is_one(status: int, said: bytes, text: bytes, took: Took) -> None:
    """One line each of our own making: 451 or 554, printable."""
    end = after(status, said, text=text, first=took, second=took)
    assert (end.reply is None) == (end.status == "delivered")
    if end.reply is not None:
        lines = told(end).split("\r\n")
        assert lines.pop() == ""
        assert all(line[:3] == str(end.reply.code) and line.isprintable() for line in lines)
        assert end.reply.code == (554 if end.status == "failed" else 451)
