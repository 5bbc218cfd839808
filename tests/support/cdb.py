"""Write cdb files as qmail-cdb and cdbmake do: the format of cr.yp.to/cdb/cdb.txt, from its other side."""

from __future__ import annotations

import struct


def cdb(*entries: str | tuple[str, str]) -> bytes:
    """The octets of a cdb with these keys, each with its data or none."""
    pairs = [(entry, "") if isinstance(entry, str) else entry for entry in entries]
    out = bytearray(2048)
    tables: list[list[tuple[int, int]]] = [[] for _ in range(256)]
    for key, data in ((key.encode(), data.encode()) for key, data in pairs):
        hashed = _hash(key)
        tables[hashed & 255].append((hashed, len(out)))
        out += struct.pack("<II", len(key), len(data)) + key + data
    for number, table in enumerate(tables):
        slots = [(0, 0)] * (2 * len(table))
        for hashed, at in table:
            slot = (hashed >> 8) % len(slots)
            while slots[slot][1]:
                slot = (slot + 1) % len(slots)
            slots[slot] = (hashed, at)
        struct.pack_into("<II", out, number * 8, len(out), len(slots))
        out += b"".join(struct.pack("<II", *slot) for slot in slots)
    return bytes(out)


def _hash(key: bytes) -> int:
    hashed = 5381
    for octet in key:
        hashed = ((hashed << 5) + hashed & 0xFFFFFFFF) ^ octet
    return hashed
