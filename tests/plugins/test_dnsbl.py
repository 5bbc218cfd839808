"""dnsbl: its manual page, sentence by sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from forkd.sdk import QuotaExceeded
from forkd.sdk.fakes import FakeDns
from forkd.sdk.testing import (
    Answer,
    LoadedPlugin,
    ScriptedSession,
    assert_deferred,
    assert_denied,
    assert_exported,
    assert_passed,
    load_plugin,
)

FOLDER = Path(__file__).parent.parent.parent / "plugins" / "dnsbl"
CLIENT = "7.2.0.192"
"""192.0.2.7, as it is asked for."""


def listed(*answers: str, txt: str = "") -> dict[str, Any]:
    return {"a": list(answers), "txt": [txt.encode()] if txt else []}


def session(
    names: dict[str, Any], *, clock: Any = lambda: 0.0, dns: Any = None, **facts: Any
) -> ScriptedSession:
    """A session of 192.0.2.7 with these names in DNS; settings and facts of the session."""
    settings = {name: facts.pop(name) for name in list(facts) if name in SETTINGS}
    loaded = load_plugin(FOLDER, settings={"zones": ["bl.example"]} | settings)
    values = {name: declared.get("default") for name, declared in loaded.manifest["settings"].items()}
    values |= {"zones": ["bl.example"]} | settings
    plugin = sys.modules["dnsbl"].hooks(values, clock)
    plugin.name = "dnsbl"
    facts = {"client_ip": "192.0.2.7"} | facts
    return LoadedPlugin(plugin, loaded.manifest, values).session(dns=dns or FakeDns(names), **facts)


SETTINGS = frozenset(load_plugin(FOLDER, settings={"zones": ["bl.example"]}).manifest["settings"])


def rcpt(
    names: dict[str, Any], to: str = "bob@test.local", sender: str = "ann@example.org", **more: Any
) -> Answer:
    client = session(names, **more)
    client.connect()
    client.helo("mail.helo.example")
    client.mail(sender)
    return client.rcpt(to)


def test_a_listed_client_is_refused_at_rcpt():
    names = {f"{CLIENT}.bl.example": listed("127.0.0.2", txt="sends spam, see https://bl.example/?")}
    answer = rcpt(names)
    assert_denied(answer, code=550, enhanced="5.7.1")
    assert answer.verdict is not None
    assert answer.verdict.text == "192.0.2.7 is listed by bl.example sends spam, see https://bl.example/?"
    assert_passed(rcpt({}))
    assert_passed(rcpt(names, client_ip="192.0.2.8"))


def test_ipv6_is_asked_for_by_nibbles():
    name = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.example"
    assert_denied(rcpt({name: listed("127.0.0.2")}, client_ip="2001:db8::1"))


ZONES = [
    "a.example 127.0.0.[2..3] 3",
    "a.example 127.0.0.10 1",
    "b.example 2",
    "ok.example 127.0.[0..255].[1;2] -4",
]


@pytest.mark.parametrize(
    ("a", "b", "ok", "score"),
    [
        ((), (), (), 0), (("127.0.0.2",), (), (), 3),
        (("127.0.0.10",), (), (), 1), (("127.0.0.9",), (), (), 0),
        (("127.0.0.10",), ("127.0.0.9",), (), 3), (("127.0.0.2", "127.0.0.10"), (), (), 4),
        (("127.0.0.2",), ("127.0.0.2",), ("127.0.5.1",), 1), (("127.0.0.2", "127.0.0.3"), (), (), 3),
        ((), (), ("127.0.5.3",), 0), ((), (), ("127.0.9.2",), -4),
    ],
)  # fmt: skip
def test_the_weights_of_all_lines_that_match_are_added(a: Any, b: Any, ok: Any, score: int):
    """Patterns and weights; from `threshold` on it is refused; a line counts once."""
    names = {
        f"{CLIENT}.{zone}.example": listed(*answers)
        for zone, answers in (("a", a), ("b", b), ("ok", ok)) if answers
    }  # fmt: skip
    answer = rcpt(names, zones=ZONES, threshold=3, export=True)
    assert_exported(answer, "DNSBL_SCORE", str(score))
    word = "listed" if score >= 3 else "suspect" if score > 0 else "allowed" if score < 0 else "clean"
    assert_exported(answer, "DNSBL", word)
    assert (answer.verdict is not None) is (score >= 3)


def asked(client: ScriptedSession, dns: FakeDns, to: str = "bob@test.local") -> list[str]:
    """Names that one recipient made it ask for."""
    before = len(dns.asked)
    client.rcpt(to)
    return [name for _, name in dns.asked[before:]]


def test_no_more_is_asked_than_decides_and_nothing_twice():
    names = {f"{CLIENT}.a.example": listed("127.0.0.2")}
    dns = FakeDns(names)
    client = session({}, dns=dns, zones=["b.example", "a.example 3", "c.example"], threshold=3)
    client.mail("ann@example.org")
    assert asked(client, dns) == [
        f"{CLIENT}.b.example",
        f"{CLIENT}.a.example",
        "1.0.0.127.a.example",
        f"{CLIENT}.a.example",
    ]
    assert asked(client, dns, "eve@test.local") == []
    dns = FakeDns(names)
    client = session({}, dns=dns, zones=["b.example", "c.example 2"], threshold=3)
    assert asked(client, dns) == [f"{CLIENT}.b.example"], "the rest cannot make it 3"


def test_allow_lists_are_asked_first_and_may_make_the_rest_needless():
    dns = FakeDns({f"{CLIENT}.ok.example": listed("127.0.5.1")})
    client = session({}, dns=dns, zones=ZONES, threshold=3)
    assert asked(client, dns)[:1] == [f"{CLIENT}.ok.example"]
    dns = FakeDns({f"{CLIENT}.ok.example": listed("127.0.5.1")})
    client = session({}, dns=dns, zones=["a.example 3", "ok.example -4"], threshold=3)
    assert asked(client, dns) == [f"{CLIENT}.ok.example", "1.0.0.127.ok.example"]


def test_allow_lists_of_domains_are_asked_before_lists_of_addresses():
    dns = FakeDns(
        {"example.org.ok.example": listed("127.0.0.2"), f"{CLIENT}.bl.example": listed("127.0.0.2")}
    )
    client = session({}, dns=dns, domain_zones=["ok.example -1"], sender_domain=True)
    client.mail("ann@example.org")
    assert asked(client, dns) == ["example.org.ok.example", "invalid.ok.example"]


def test_what_may_still_be_taken_off_is_asked_for():
    """Lists that speak for some and against others."""
    names = {f"{CLIENT}.m.example": listed("127.0.0.2"), f"{CLIENT}.n.example": listed("127.0.0.3")}
    zones = ["m.example 127.0.0.2 3", "m.example 127.0.0.9 -1", "n.example 127.0.0.3 -5"]
    assert_passed(rcpt(names, zones=zones, threshold=3))
    assert_denied(rcpt(names, zones=zones[:2], threshold=3))


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fe80::1", "fd00::1"])
def test_private_addresses_are_never_asked_for(address: str):
    dns = FakeDns({})
    assert asked(session({}, dns=dns, client_ip=address), dns) == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("203.0.113.9", "it answers 203.0.113.9, which is outside 127.0.0.0/8"),
        ("127.255.255.254", "it answers 127.255.255.254: not to this resolver"),
        ("127.255.255.252", "it answers 127.255.255.252"),
        ("127.0.0.1", "it answers 127.0.0.1, which stands for no entry"),
    ],
)
def test_what_is_not_believed_is_logged_and_counts_for_nothing(answer: str, said: str):
    """Hijacked resolvers, and lists that do not answer us."""
    client = session({f"{CLIENT}.bl.example": listed(answer)})
    client.mail("ann@example.org")
    for to in ("bob@test.local", "eve@test.local"):
        assert_passed(client.rcpt(to))
    [line] = client.logged
    assert line.startswith(f"list bl.example counts for nothing: {said}")
    assert client.counted == {"unusable": 1}


def test_a_list_that_lists_everything_is_given_up():
    """RFC 5782 5: it has an entry for 127.0.0.1."""
    names = {f"{CLIENT}.bl.example": listed("127.0.0.2"), "1.0.0.127.bl.example": listed("127.0.0.2")}
    client = session(names)
    assert_passed(client.rcpt("bob@test.local"))
    assert client.logged == ["list bl.example counts for nothing: it lists what no list has: everything"]
    assert_denied(rcpt(names, check_zones=False))


def test_temporary_failures_are_no_hits():
    client = session(
        {f"{CLIENT}.a.example": "temporary", f"{CLIENT}.b.example": listed("127.0.0.2")},
        zones=["a.example", "b.example"],
    )
    assert_denied(client.rcpt("bob@test.local"))
    assert client.logged[0] == "list a.example counts for nothing: it does not answer"
    assert client.counted == {"temporary": 1, "listed": 1}


class Exhausted:
    """A quota that is used up."""

    def a(self, name: str) -> None:
        raise QuotaExceeded("200 lookups in this session")

    txt = a


def test_a_quota_that_is_used_up_makes_the_client_come_again():
    """Else whoever makes us ask enough would pass."""
    client = session({}, dns=Exhausted())
    assert_deferred(client.rcpt("bob@test.local"), code=451, enhanced="4.7.1")
    assert client.counted == {"quota": 1}


class Slow:
    """Names whose lookup takes so many seconds of a clock that goes on by nothing else."""

    def __init__(self, names: dict[str, Any], seconds: dict[str, float]) -> None:
        self.dns = FakeDns(names)
        self.now = 0.0
        self._seconds = seconds

    def a(self, name: str) -> Any:
        self.now += self._seconds.get(name, 0)
        return self.dns.a(name)

    def txt(self, name: str) -> Any:
        return self.dns.txt(name)


@pytest.mark.parametrize(
    ("slow", "refused", "text"),
    [
        (f"{CLIENT}.a.example", False, ""),
        (f"{CLIENT}.b.example", False, ""),
        ("1.0.0.127.b.example", True, "192.0.2.7 is listed by b.example"),
        ("", True, "192.0.2.7 is listed by b.example why"),
    ],
)
def test_after_its_patience_nothing_more_is_asked(slow: str, refused: bool, text: str):
    """Lists that are slow must not cost the client its session; what was not asked counts for nothing."""
    dns = Slow({f"{CLIENT}.b.example": listed("127.0.0.2", txt="why")}, {slow: 3.5})
    client = session({}, dns=dns, clock=lambda: dns.now, zones=["a.example", "b.example"])
    answer = client.rcpt("bob@test.local")
    assert (answer.verdict is not None) is refused
    if answer.verdict is None:
        assert client.counted == {"late": 1}
        assert client.logged == [
            "list b.example counts for nothing: it was not asked, those before it took too long"
        ]
    else:
        assert answer.verdict.text == text


@pytest.mark.parametrize("to", ["postmaster@test.local", "Abuse@test.local"])
def test_postmaster_can_be_reached_by_everybody(to: str):
    names = {f"{CLIENT}.bl.example": listed("127.0.0.2")}
    client = session(names)
    client.mail("ann@example.org")
    assert_passed(client.rcpt(to))
    assert_denied(client.rcpt("bob@test.local"))


@pytest.mark.parametrize(
    "more",
    [
        {"user": "ann"},
        {"allow": ["client 192.0.2.0/24"]},
        {"allow": ["client .example"]},
        {"allow": ["recipient test.local"]},
        {"allow": ["sender example.org"], "sender_domain": True, "domain_zones": ["dbl.example"]},
    ],
)
def test_whom_no_list_counts_against(more: dict[str, Any]):
    assert_passed(rcpt({f"{CLIENT}.bl.example": listed("127.0.0.2")}, **more))


def test_at_connect_the_connection_is_refused():
    """By its address and its reverse name; what else there is to know is known at RCPT."""
    helo = {"mail.helo.example.dbl.example": listed("127.0.1.2")}
    names = {f"{CLIENT}.bl.example": listed("127.0.0.2"), **helo}
    assert_denied(session(names, at="connect").connect(), enhanced="5.7.1")
    assert_passed(session(names).connect())
    client = session(names, at="connect", zones=[], domain_zones=["dbl.example"], helo_name=True)
    assert_passed(client.connect())
    client.helo("mail.helo.example")
    assert_denied(client.rcpt("bob@test.local"))
    names = {"client.example.dbl.example": listed("127.0.1.2")}
    client = session(names, at="connect", zones=[], domain_zones=["dbl.example"], reverse_name=True)
    assert_denied(client.connect())


DOMAINS: dict[str, Any] = {"zones": [], "domain_zones": ["dbl.example 127.0.1.[2..99]"]}


@pytest.mark.parametrize(
    ("setting", "domain"),
    [
        ("sender_domain", "example.org"),
        ("helo_name", "mail.helo.example"),
        ("reverse_name", "client.example"),
    ],
)
def test_domains_are_looked_up_where_it_is_set(setting: str, domain: str):
    names = {f"{domain}.dbl.example": listed("127.0.1.2")}
    answer = rcpt(names, **DOMAINS, **{setting: True})
    assert_denied(answer)
    assert answer.verdict is not None
    assert f"{domain} is listed by dbl.example" in answer.verdict.text
    other = "helo_name" if setting == "sender_domain" else "sender_domain"
    assert_passed(rcpt(names, **DOMAINS, **{other: True}))
    assert_passed(rcpt({**names, "invalid.dbl.example": listed("127.0.1.2")}, **DOMAINS, **{setting: True}))


@pytest.mark.parametrize("sender", ["", "a@[192.0.2.1]", "a@localhost"])
def test_what_is_no_domain_is_not_asked_for(sender: str):
    dns = FakeDns({})
    client = session({}, dns=dns, sender_domain=True, **DOMAINS)
    client.mail(sender)
    assert asked(client, dns) == []


@pytest.mark.parametrize("name", ["[192.0.2.7]", "192.0.2.7", "localhost", "x" * 250 + ".example"])
def test_a_helo_name_that_is_no_domain_is_not_asked_for(name: str):
    dns = FakeDns({})
    client = session({}, dns=dns, helo_name=True, **DOMAINS)
    client.helo(name)
    assert asked(client, dns) == []


def test_one_domain_counts_once():
    """It is the client's name, the HELO name and the sender's domain."""
    names = {"mail.helo.example.dbl.example": listed("127.0.1.2")}
    more = {"reverse_name": True, "helo_name": True, "sender_domain": True, "export": True}
    loaded = session(names, **DOMAINS, **more, threshold=1)
    loaded.changes(client_name="mail.helo.example")
    loaded.helo("Mail.Helo.Example")
    loaded.mail("a@mail.helo.example")
    assert_exported(loaded.rcpt("bob@test.local"), "DNSBL_SCORE", "1")


def test_it_can_defer_or_only_note():
    names = {f"{CLIENT}.bl.example": listed("127.0.0.2")}
    assert_deferred(rcpt(names, action="defer"), code=451, enhanced="4.7.1")
    client = session(names, action="note", export=True)
    answer = client.rcpt("bob@test.local")
    assert_passed(answer)
    assert_exported(answer, "DNSBL", "listed")
    assert client.logged == ["listed with 1: 192.0.2.7 by bl.example"]
    client.rcpt("eve@test.local")
    assert len(client.logged) == 1


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"text": "{ip} {what} {zone} {score}"}, "192.0.2.7 192.0.2.7 bl.example 5"),
        ({"text": "no"}, "no"),
        ({"zones": ["bl.example 5 => see https://x.example/?{ip}"]}, "see https://x.example/?192.0.2.7"),
        ({"text": "{txt}"}, "a b ?? c"),
    ],
)
def test_what_a_client_is_told(more: dict[str, Any], text: str):
    """A list's own words are strangers' words: on one line, printable, cut."""
    names = {f"{CLIENT}.bl.example": {"a": ["127.0.0.2"], "txt": [b"a\r\nb \xc3\xa4\x00 c"]}}
    answer = rcpt(names, **{"zones": ["bl.example 5"]} | more)
    assert answer.verdict is not None
    assert answer.verdict.text == text


def test_a_long_text_of_a_list_is_cut():
    names = {f"{CLIENT}.bl.example": {"a": ["127.0.0.2"], "txt": [b"x" * 5000]}}
    answer = rcpt(names)
    assert answer.verdict is not None
    assert len(answer.verdict.text) < 400


def test_the_heaviest_line_is_the_one_that_is_told():
    names = {f"{CLIENT}.{zone}": listed("127.0.0.2") for zone in ("a.example", "b.example")}
    answer = rcpt(names, zones=["a.example 2", "b.example 3"], threshold=4)
    assert answer.verdict is not None
    assert "b.example" in answer.verdict.text


def test_the_key_of_a_data_query_zone_is_told_to_nobody():
    zone = "secretkey.zen.dq.spamhaus.net"
    client = session({f"{CLIENT}.{zone}": listed("127.0.0.2")}, zones=[zone])
    answer = client.rcpt("bob@test.local")
    assert_denied(answer)
    assert "secretkey" not in f"{answer} {client.logged}"


def test_lists_are_read_from_files(tmp_path: Path):
    file = tmp_path / "allow.list"
    file.write_text("client 192.0.2.7  # partner\n")
    assert_passed(rcpt({f"{CLIENT}.bl.example": listed("127.0.0.2")}, lists=[str(file)]))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"zones": []}, "settings zones, domain_zones: there is no list"),
        ({"zones": ["nope"]}, "these are no zones: setting zones, entry 1"),
        ({"domain_zones": ["dbl.example"]}, "setting domain_zones: no domain is looked up"),
        ({"helo_name": True}, "setting helo_name: there is no list of domains"),
        ({"threshold": 2}, "setting threshold: all weights together are 1"),
        ({"zones": ["bl.example -3"]}, "setting threshold: all weights together are 0"),
        ({"text": "{who}"}, "setting text: {who} stands for nothing"),
        ({"text": ""}, "setting text: "),
        ({"zones": ["bl.example => {x}"]}, "setting zones: {x} stands for nothing"),
        ({"allow": ["192.0.2.1"]}, "these name nobody"),
        ({"allow": ["sender example.org"]}, "setting allow: senders are not read"),
    ],
)
def test_bad_settings_stop_the_start(settings: dict[str, Any], why: str):
    with pytest.raises(ValueError, match=why):
        load_plugin(FOLDER, settings={"zones": ["bl.example"]} | settings)
