"""Invariant: whatever a sandbox sends is an answer that may stand, or CallFailed; never anything else.

An input is one frame. It is decoded as the worker does, then checked at every hook, with every power and
with none.
"""

from __future__ import annotations

import msgspec

from forkd.config.schema import Powers
from forkd.hooks.checks import check_answer
from forkd.hooks.spec import HOOKS
from forkd.rpc.calls import Answer, CallFailed

_ALL = Powers(
    **{field.name: True if field.default is False else ("*",) for field in msgspec.structs.fields(Powers)}
)
_NONE = Powers()
_decode = msgspec.json.Decoder(Answer).decode


def one_input(data: bytes) -> None:
    """Take one frame; raises where the invariant does not hold."""
    try:
        answer = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    for spec in HOOKS.values():
        for powers in (_ALL, _NONE):
            for smtputf8 in (False, True):
                try:
                    check_answer(answer, spec=spec, powers=powers, smtputf8=smtputf8)
                except CallFailed as failed:
                    assert failed.cause in ("protocol", "exception")
                    continue
                assert not answer.error
                if powers is _NONE:
                    assert not answer.edits
                    assert answer.verdict is None or answer.verdict.do in ("deny", "defer", "disconnect")
