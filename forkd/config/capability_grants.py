"""Does the admin allow what a plugin wants of the world beside the mail?

As in grants.py: each want is granted in so many words, or nothing starts; what is granted and not wanted
is said, and gives nothing.
"""

from __future__ import annotations

from typing import Any

from forkd.config.capabilities import (
    ANY,
    TARGET_NAME,
    Wished,
    normal_suffix,
    normal_target,
    suffix_covers,
    suffix_slip,
    suffixes_named,
    wished,
)
from forkd.config.grants import Joining
from forkd.config.problems import toml_key, toml_value
from forkd.config.schema import Capabilities


def capabilities(one: Joining, settings: dict[str, Any]) -> Capabilities:
    """What is wanted with these settings and granted."""
    _check_settings(one, settings)
    wish = wished(one.plugin.manifest.wants, settings)
    dns = _dns(one, wish)
    if "state" in wish.reasons and not one.entry.grants.state:
        one.not_granted("state", "to keep keys and values", "state = true", wish.reasons["state"])
    elif one.entry.grants.state and "state" not in wish.reasons:
        one.not_wanted("state")
    for name in ("processes", "exec"):
        if getattr(one.entry.grants, name):
            one.not_wanted(name)
    return Capabilities(
        dns=dns,
        state="state" in wish.reasons,
        connect=_connect(one, wish),
        threads=_threads(one, wish),
    )


def _check_settings(one: Joining, settings: dict[str, Any]) -> None:
    """Names that the admin gives in settings are names."""
    asked = one.plugin.manifest.wants.capabilities.dns
    for key in asked.suffixes_in if asked else ():
        for text in suffixes_named(settings.get(key)):
            if rule := suffix_slip(text):
                one.reader.bad(("settings", key), rule, value=text)


def _dns(one: Joining, wish: Wished) -> tuple[str, ...]:
    granted = one.entry.grants.dns
    sound = []
    for text in granted:
        if rule := suffix_slip(text):
            one.reader.bad(("grants", "dns"), rule, value=text)
        else:
            sound.append(normal_suffix(text))
    missing = [name for name in wish.suffixes if not any(suffix_covers(grant, name) for grant in sound)]
    if missing and len(sound) == len(granted):
        if ANY in missing:
            whole, what = [ANY], "to look up any name (names can carry data out)"
        else:
            whole, what = [*granted, *missing], f"to look up names below {', '.join(missing)}"
        one.not_granted("dns", what, f"dns = {toml_value(whole)}", wish.reasons["dns"])
    elif granted and not wish.suffixes:
        one.not_wanted("dns")
    else:
        beyond = [grant for grant in sound if not any(suffix_covers(name, grant) for name in wish.suffixes)]
        one.wider("dns", beyond, wish.suffixes)
    return wish.suffixes


def _connect(one: Joining, wish: Wished) -> dict[str, str]:
    given = one.entry.grants.connect
    found: dict[str, str] = {}
    for name, text in given.items():
        path = ("grants", "connect", name)
        if not TARGET_NAME.fullmatch(name):
            one.reader.bad(path, "no plugin can ask for a target of this name")
        elif name not in wish.targets:
            one.not_wanted(f"connect {toml_key(name)}")
        try:
            found[name] = normal_target(text)
        except ValueError as error:
            one.reader.bad(path, str(error), value=text, hint=_target_hint(text))
    missing = [name for name in wish.targets if name not in given]
    if missing:
        rows = [f"{toml_key(name)} = {toml_value(text)}" for name, text in given.items()]
        rows += [f'{toml_key(name)} = "HOST:PORT or unix:/path"' for name in missing]
        what = f"to connect to {', '.join(missing)}"
        one.not_granted("connect", what, f"connect = {{ {', '.join(rows)} }}", wish.reasons["connect"])
    return {name: found[name] for name in wish.targets if name in found}


def _threads(one: Joining, wish: Wished) -> int:
    granted = one.entry.grants.threads
    if granted < wish.threads:
        what = f"{wish.threads} threads for each sandbox"
        one.not_granted("threads", what, f"threads = {wish.threads}", wish.reasons["threads"])
    elif granted and not wish.threads:
        one.not_wanted("threads")
    elif granted > wish.threads:
        one.wider("threads", [str(granted)], [str(wish.threads)])
    return wish.threads


def _target_hint(text: str) -> str:
    """What was probably meant."""
    if text.startswith("/"):
        return f'write "unix:{text}"'
    if text.count(":") > 1 and not text.startswith("["):
        host, _, port = text.rpartition(":")
        return f'write "[{host}]:{port}"'
    return ""
