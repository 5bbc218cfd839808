"""What the pages take from the source, since nothing else has it."""

from __future__ import annotations

import ast

import pytest

from forkd.config.next_hop_schema import Lmtp, NextHop
from forkd.sdk.views import Session
from tools.manual import source
from tools.manual.events import every_event


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("def f(): ...", "f()"),
        ("def f(self, a: int, b: str = '') -> None: ...", "f(a, b='')"),
        ("def f(a, *rest, **more): ...", "f(a, *rest, **more)"),
        ("def f(a, *, b: int = 1, c): ...", "f(a, *, b=1, c)"),
        ("def f(*rest, b=None): ...", "f(*rest, b=None)"),
    ],
)
def test_a_function_is_shown_as_it_is_called(written: str, shown: str):
    """Without types, which are the checker's."""
    (node,) = ast.parse(written).body
    assert isinstance(node, ast.FunctionDef)
    assert source.called(node) == shown


def test_words_below_a_field_are_its_own_or_its_bases():
    """Lmtp declares tls anew, and has the rest from NextHop."""
    own = source.own_fields(Lmtp)
    assert list(own) == ["address", "tls", "connections"]
    all_of_it = source.fields(Lmtp)
    assert all_of_it["tls"] == own["tls"] != source.own_fields(NextHop)["tls"]
    assert all_of_it["idle"] == source.own_fields(NextHop)["idle"] != ""


def test_attributes_set_in_init_have_their_words():
    """And private ones are not shown."""
    found = source.own_fields(Session)
    assert found["client_name"].startswith("Reverse name")
    assert not [name for name in found if name.startswith("_")]


def test_an_event_has_its_name_and_its_fields():
    """As log.py writes it; `level` is the line's, not a field of it."""
    events = {event.name: event for event in every_event()}
    assert events["plugin_log"].required == ("plugin", "session", "text")
    assert "level" not in events["process"].optional
    assert events["delivery"].required == ("id", "recipient", "transport", "status")
