"""Do the routes fit each other, the transports and [queue]?"""

from __future__ import annotations

from forkd.config.checking import Check
from forkd.config.problems import toml_key
from forkd.config.routes import hidden, in_force, key_of
from forkd.config.schema import Route
from forkd.config.units import format_duration


def routes(c: Check) -> None:
    """Patterns, ways that exist, waits in their order, no route behind one that takes all of its mail."""
    sound: dict[str, Route] = {}
    for pattern, route in c.config.route.items():
        path = ("route", pattern)
        try:
            key_of(pattern)
        except ValueError as error:
            c.bad(path, str(error))
            continue
        sound[pattern] = route
        if c.clean((*path, "transport")):
            c.transport_exists((*path, "transport"), route.transport)
        _waits(c, pattern, route)
    for pattern, by in hidden(sound):
        c.notes.append(
            f"route.{toml_key(pattern)} is never used: route.{toml_key(by)}, before it, takes its mail"
        )


def _waits(c: Check, pattern: str, route: Route) -> None:
    """As of [queue]: the first wait is not longer than the longest, nor that than giving up takes."""
    whole = in_force(c.config, route)
    for low, high, why in (
        ("retry_first", "retry_max", "the first wait cannot be longer than the longest"),
        ("retry_max", "give_up", "mail would be given up before such a wait is over"),
    ):
        own = [key for key in (low, high) if getattr(route, key)]
        least, most = getattr(whole, low), getattr(whole, high)
        # What both leave to [queue] is checked there; give_up = 0 in it says: never tried again.
        if not own or least <= most or not most:
            continue
        paths = [("route", pattern, key) if key in own else ("queue", key) for key in (low, high)]
        if c.clean(*paths):
            where = "" if len(own) == 2 else " of [queue]"
            kept = own[0]
            other = high if kept == low else low
            rule = (
                f"it is {'longer' if kept == low else 'shorter'} than {other}{where} "
                f"({format_duration(getattr(whole, other))}): {why}"
            )
            c.bad(("route", pattern, kept), rule, value=format_duration(getattr(whole, kept)))
