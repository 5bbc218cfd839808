"""auth_results: the published test suite of RFC 7208, through the plugin's MAIL hook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from forkd.sdk.fakes import FakeDns
from forkd.sdk.testing import load_plugin
from tests.support.vectors import vector

FOLDER = Path(__file__).parent.parent.parent / "plugins" / "auth_results"


def zone(data: dict[str, list[Any]]) -> dict[str, Any]:
    """A scenario's records as FakeDns has them; TIMEOUT is a name, or one kind of it, that never answers."""
    names: dict[str, Any] = {}
    for name, entries in data.items():
        records: dict[str, Any] = {}
        texts, policies = [], []
        for entry in entries:
            if entry == "TIMEOUT":
                records["*"] = "temporary"
                continue
            for kind, value in entry.items():
                if value == "TIMEOUT":
                    records[kind.lower()] = "temporary"
                elif kind in ("TXT", "SPF"):
                    (texts if kind == "TXT" else policies).append(value)
                elif kind == "MX":
                    records.setdefault("mx", []).append((value[0], value[1]))
                else:
                    records.setdefault(kind.lower(), []).append(value)
        # The suite's rule for type SPF, which nobody asks for any more: they are TXT where no TXT is given.
        for text in texts or policies:
            if text != "NONE":
                joined = "".join([text] if isinstance(text, str) else text)
                records.setdefault("txt", []).append(joined.encode("utf-8"))
        names[name.lower()] = records
    return names


def cases() -> list[Any]:
    found = []
    for scenario in yaml.safe_load_all(vector("test/rfc7208-tests.yml").read_text()):
        names = zone(scenario["zonedata"])
        for name, test in scenario["tests"].items():
            found.append(pytest.param(names, test, id=name))
    return found


@pytest.mark.parametrize(("names", "test"), cases())
def test_the_published_suite(names: dict[str, Any], test: dict[str, Any], request: pytest.FixtureRequest):
    """Each case of http://www.open-spf.org's suite for RFC 7208: the result that later plugins see."""
    plugin = load_plugin(FOLDER, settings={"trusted": [], "refuse_spf": []})
    session = plugin.session(client_ip=test["host"], hostname="mx.test.local", dns=FakeDns(names))
    session.helo(test["helo"])
    sender = test["mailfrom"]
    session.mail(sender)
    expected = test["result"] if isinstance(test["result"], list) else [test["result"]]
    assert session.exports["SPFRESULT"] in expected
