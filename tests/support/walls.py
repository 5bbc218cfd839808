"""How is a zygote started without some of its walls? For modes of the machine, and tests of the tests."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

from forkd.sandbox.confine import LAYERS
from forkd.sandbox.policy import Policy, compile_policy

LANDLOCK = frozenset({"files", "network", "signals"})
AROUND = frozenset({"namespaces", "mount_root"})
WALLS = frozenset(LAYERS) - {"no_new_privs"} | {"uid", "seccomp child"}
"""What can be left out by a zygote's specification (the mount root goes with the namespaces). `seccomp` is
the zygote's filter, `seccomp child` the one that each sandbox stacks on it."""

OFF_BY_MODE: dict[str, frozenset[str]] = {
    "root, no namespaces": AROUND,
    "root, no Landlock": LANDLOCK,
    "user, no namespaces": AROUND,
    "user, no Landlock": LANDLOCK,
    "user, no namespaces, no Landlock": LANDLOCK | AROUND,
}
"""Further modes: walls that a kernel, or a machine's settings, may not offer."""

_ALLOW_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF_0000)
"""One instruction: return SECCOMP_RET_ALLOW."""


def without(off: frozenset[str], spec: dict[str, Any]) -> dict[str, Any]:
    """`spec` (arguments of ZygoteSpec) with the walls in `off` left out."""
    assert off <= WALLS, off - WALLS
    changed = dict(spec)
    filters = {"seccomp", "seccomp child"}
    off |= {"mount_root"} if "namespaces" in off else set()
    layers = tuple(layer for layer in spec.get("layers", LAYERS) if layer not in off - filters)
    if filters <= off:
        layers = tuple(layer for layer in layers if layer != "seccomp")
    policy: Policy = spec.get("policy") or compile_policy()
    if "seccomp" in off:
        policy = dataclasses.replace(policy, load=_ALLOW_ALL, load_own_uid=_ALLOW_ALL)
    if "seccomp child" in off:
        policy = dataclasses.replace(policy, child=_ALLOW_ALL)
    changed |= {"layers": layers, "policy": policy}
    return changed
