"""Invariant: any octets are a header to look at: nothing raises, nothing is lost, work is bounded.

The scanner, RFC 2047 words, RFC 2231 parameters and the walk through MIME, over one input each.
"""

from __future__ import annotations

from forkd.message.trace import count_received
from forkd.sdk.headers import Headers, split_header
from forkd.sdk.mime import Walk, file_names


def one_input(data: bytes) -> None:
    """Look at one message; raises where the invariant does not hold."""
    headers = Headers(data)
    at = split_header(data)
    assert 0 <= at <= len(data)
    assert headers.body_offset == at
    fields = list(headers.raw_fields())
    whole = b"".join(raw for _, raw in fields)
    assert whole in data, "fields are the message's own octets, in their order"
    assert headers.raw.endswith(whole)
    for name, value in headers.items():
        assert name in headers
        assert "\n" not in value
        value.encode("utf-8")
        (headers.decoded(name) or "").encode("utf-8")
    assert len(headers) == len(fields)
    assert count_received(data[:at]) >= sum(name.lower() == "received" for name, _ in fields)
    for name in file_names(headers):
        name.encode("utf-8", "surrogatepass")
    for part in Walk(data):
        content = part.content(1000)
        assert len(content) <= 1000
        if part.span is not None:
            assert data[slice(*part.span)] == part.raw()
