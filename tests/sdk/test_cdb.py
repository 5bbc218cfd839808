"""cdb files as qmail's tools write them: their keys, and nothing of one that is broken."""

from __future__ import annotations

import base64
import zlib

import pytest

from forkd.sdk.cdb import CdbError, keys
from tests.support.cdb import cdb

TINYCDB = zlib.decompress(
    base64.b64decode(
        "eNoz4WAAA5NResjSTEDaBcqnBw2yLwTKH6VH6VF6lB6lhw4NKr9ToHwoxZDokKRXklpcwglkMwOxQ3IKRKCisgqmJrcCLKIH5TJYKB+5"
        "LQCTBAK3+QnJKkD+v46ruxmQxAEKZWXr"
    )
)
"""Of `cdb -c` (tinycdb 0.78) from +8,0:a@b.test-> +9,3:@cdb.test->xyz +8,0:mx.test.->"""


def test_keys_of_a_file_that_another_program_wrote():
    """The format is D. J. Bernstein's: whoever writes it, it is the same."""
    assert list(keys(TINYCDB)) == [b"a@b.test", b"@cdb.test", b"mx.test."]
    assert cdb("a@b.test", ("@cdb.test", "xyz"), "mx.test.") == TINYCDB


def test_an_empty_one_has_no_keys():
    """Compiled from an empty file: 2048 octets of header, which name tables without slots."""
    assert list(keys(cdb())) == []


@pytest.mark.parametrize("at", [*range(0, 2048, 511), *range(2047, len(TINYCDB))])
def test_one_that_was_cut_is_refused(at: int):
    """Half a list of domains would refuse mail for the other half."""
    with pytest.raises(CdbError):
        list(keys(TINYCDB[:at]))


def test_a_key_longer_than_the_records_is_refused():
    """A length from a broken file must not reach into the tables."""
    with pytest.raises(CdbError, match="broken at octet 2048"):
        list(keys(TINYCDB[:2048] + b"\xff\xff\xff\x7f" + TINYCDB[2052:]))


def test_a_text_file_is_no_cdb():
    """The source list under the compiled one's name."""
    with pytest.raises(CdbError, match="no cdb"):
        list(keys(b"example.org\n" * 1000))
