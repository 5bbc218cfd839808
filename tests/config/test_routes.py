"""Which mail goes another way than its domain's (config/routes.py)?"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from forkd.config import schema
from forkd.config.load import load
from forkd.config.problems import ConfigError
from forkd.config.routes import Routes, hidden, in_force, key_of


def routes(*patterns: str) -> dict[str, schema.Route]:
    """Each to a transport of its pattern's name."""
    return {pattern: schema.Route(transport=pattern) for pattern in patterns}


PATTERNS = routes(
    "vip@a.org", "a.org", "*.b.org", "x.b.org", "*.deep.b.org", "bücher.example", "[192.0.2.1]", "c@b.org"
)
FOUND = [
    ("vip", "a.org", "vip@a.org"),
    ("VIP", "A.org", "vip@a.org"),
    ("else", "a.org", "a.org"),
    ("c", "b.org", "c@b.org"),
    ("d", "b.org", ""),
    ("d", "x.b.org", "*.b.org"),
    ("d", "y.deep.b.org", "*.b.org"),
    ("d", "xn--bcher-kva.example", "bücher.example"),
    ("d", "[192.0.2.1]", "[192.0.2.1]"),
    ("d", "sub.a.org", ""),
    ("postmaster", "", ""),
]


@pytest.mark.parametrize(("local", "domain", "way"), FOUND, ids=[f"{row[0]}@{row[1]}" for row in FOUND])
def test_the_first_pattern_that_matches_counts(local: str, domain: str, way: str) -> None:
    """In the order of the file, not the narrower one."""
    found = Routes.from_config(PATTERNS).find(local, domain)
    assert (found.transport if found else "") == way


def test_an_address_matches_with_a_detail_too() -> None:
    """As its mailbox, where the domain has details."""
    table = Routes.from_config(routes("vip@a.org"))
    assert table.find("vip+x", "a.org", mailbox="vip")
    assert table.find("vip+x", "a.org", mailbox="vip+x") is None


def test_everything_is_a_pattern() -> None:
    """For those that no route before it took; postmaster without a domain too."""
    table = Routes.from_config(routes("a.org", "*"))
    assert [table.find("x", d).transport for d in ("a.org", "b.org", "")] == ["a.org", "*", "*"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "pattern", ["", "@a.org", "a..org", "*@a.org.", "a@*.b.org", "*.", "a b", "**", "u@"]
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    """It would match nothing, and its mail go where it was not meant to."""
    with pytest.raises(ValueError, match=r"this is|an address has"):
        key_of(pattern)


def test_a_route_behind_one_that_takes_all_of_its_mail_is_named() -> None:
    """Order counts, so it is a mistake."""
    patterns = routes(
        "*.b.org", "x.b.org", "u@y.b.org", "*.c.b.org", "b.org", "u@b.org", "B.org", "*", "z.org"
    )
    assert hidden(patterns) == [
        ("x.b.org", "*.b.org"), ("u@y.b.org", "*.b.org"), ("*.c.b.org", "*.b.org"), ("u@b.org", "b.org"),
        ("B.org", "b.org"), ("z.org", "*"),
    ]  # fmt: skip


def test_an_admin_is_told_what_is_wrong(tmp_path: Path) -> None:
    """With file and line; and of what has no effect."""
    path = tmp_path / "forkd.toml"
    path.write_text('[domain."a.org"]\n[route."@a.org"]\n[route."b.org"]\ntransport = "locl"\n')
    with pytest.raises(ConfigError) as caught:
        load(path)
    first, second = map(str, caught.value.problems)
    assert first.startswith(f'{path}:2: [route] "@a.org": an address has a part before the @')
    assert second.startswith(f'{path}:4: [route."b.org"] transport = "locl"')
    path.write_text('[domain."a.org"]\n[route."*"]\n[route."a.org"]\n')
    assert any('route."a.org" is never used: route."*", before it' in note for note in load(path).notes)


LEFT = schema.Route(transport="x")
FILLED = [
    ("nothing said", LEFT, {}),
    ("no route", None, {"transport": "local"}),
    ("one", schema.Route(transport="x", give_up=schema.Seconds(5)), {"give_up": 5}),
    ("all", schema.Route(
        transport="x", retry_first=schema.Seconds(1), retry_max=schema.Seconds(2), give_up=schema.Seconds(3),
        warn_after=schema.Seconds(4), concurrency=5),
     {"retry_first": 1, "retry_max": 2, "give_up": 3, "warn_after": 4, "concurrency": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("route", "own"), [row[1:] for row in FILLED], ids=[row[0] for row in FILLED])
def test_what_a_route_leaves_out_is_queue_s_and_reports(
    route: schema.Route | None, own: dict[str, object]
) -> None:
    """Each key by itself."""
    config = schema.Config(
        queue=schema.Queue(
            retry_first=schema.Seconds(10),
            retry_max=schema.Seconds(20),
            give_up=schema.Seconds(30),
            concurrency=7,
        ),
        reports=schema.Reports(warn_after=schema.Seconds(40)),
    )
    left = {"transport": "x", "retry_first": 10, "retry_max": 20, "give_up": 30, "warn_after": 40}
    assert msgspec.structs.asdict(in_force(config, route)) == left | {"concurrency": 7} | own


ORDERS = [
    ("both", 'retry_first = "2h"\nretry_max = "1h"', "retry_first", "it is longer than retry_max (1h)"),
    ("first", 'retry_first = "5h"', "retry_first", "it is longer than retry_max of [queue] (4h)"),
    ("most", 'retry_max = "1m"', "retry_max", "it is shorter than retry_first of [queue] (5m)"),
    ("give up", 'give_up = "1h"', "give_up", "it is shorter than retry_max of [queue] (4h)"),
    ("most, longer", 'retry_max = "6d"', "retry_max", "it is longer than give_up of [queue] (5d)"),
]


@pytest.mark.parametrize(("keys", "key", "says"), [row[1:] for row in ORDERS], ids=[row[0] for row in ORDERS])
def test_waits_are_in_their_order(tmp_path: Path, keys: str, key: str, says: str) -> None:
    """With those of [queue], where the route leaves one out: the key that the admin wrote is named."""
    path = tmp_path / "forkd.toml"
    path.write_text(f'[domain."a.org"]\n[route."b.org"]\n{keys}\n')
    with pytest.raises(ConfigError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert (problem.table, problem.key) == ('[route."b.org"]', key)
    assert problem.rule.startswith(says)


def test_what_is_wrong_in_queue_is_said_there_alone(tmp_path: Path) -> None:
    """A route that leaves it to [queue] is no second mistake."""
    path = tmp_path / "forkd.toml"
    path.write_text('[domain."a.org"]\n[queue]\nretry_first = "5h"\n[route."b.org"]\n')
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert [problem.table for problem in caught.value.problems] == ["[queue]"]


def test_waits_that_fit_each_other_are_taken(tmp_path: Path) -> None:
    """And what [queue] says of giving up at once holds for all."""
    path = tmp_path / "forkd.toml"
    path.write_text('[domain."a.org"]\n[route."b.org"]\nretry_max = "30m"\ngive_up = "1h"\n')
    load(path)
    path.write_text('[domain."a.org"]\n[queue]\ngive_up = "0s"\n[route."b.org"]\nretry_max = "30m"\n')
    load(path)


def test_a_client_can_wait_for_every_route(tmp_path: Path) -> None:
    """accept = "proxy" takes no transport that cannot answer while a client waits."""
    path = tmp_path / "forkd.toml"
    path.write_text(
        '[domain."a.org"]\ntransport = "drop"\n[transport.drop]\nkind = "discard"\n[route."u@a.org"]\n'
        '[listener.mx]\naddress = "127.0.0.1:2525"\naccept = "proxy"\n'
    )
    with pytest.raises(ConfigError, match=r"proxy"):
        load(path)
    path.write_text(path.read_text().replace('"u@a.org"]\n', '"u@a.org"]\ntransport = "drop"\n'))
    load(path)
