"""What are the keys of a cdb file? D. J. Bernstein's constant database (cr.yp.to/cdb/cdb.txt), read whole.

Tables that qmail's tools compile: morercpthosts.cdb, badmailfrom.cdb. Who reads one here keeps its keys in
memory, where a lookup costs nothing, so the file's hash tables are used for one thing only: the first of
them begins where the records end.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = 2048
"""256 hash tables: where each begins, and how many slots it has."""
_PAIR = struct.Struct("<II")


class CdbError(ValueError):
    """These octets are no cdb, or not all of one."""


def keys(octets: bytes) -> Iterator[bytes]:
    """Every key, in the order in which they were written; one that stands twice comes twice.

    Raises CdbError, at the latest where the file stops making sense.
    """
    if len(octets) < _HEADER:
        raise CdbError("this is no cdb file: shorter than the 2048 octets that each begins with")
    tables = [table for table in _PAIR.iter_unpack(octets[:_HEADER]) if table[1]]
    end = min((at for at, _ in tables), default=_HEADER)
    if end < _HEADER or any(at + slots * _PAIR.size > len(octets) for at, slots in tables):
        raise CdbError("this is no cdb file, or the end of it is missing")
    at = _HEADER
    while at < end:
        if at + _PAIR.size > end:
            raise CdbError(f"this cdb file is broken at octet {at}")
        key, data = _PAIR.unpack_from(octets, at)
        start = at + _PAIR.size
        at = start + key + data
        if at > end:
            raise CdbError(f"this cdb file is broken at octet {start - _PAIR.size}")
        yield octets[start : start + key]
