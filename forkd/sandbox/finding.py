"""What does a self-test say of one layer?"""

from __future__ import annotations

import dataclasses

ENFORCED, ABSENT, FAILED, UNVERIFIED = "enforced", "absent", "failed", "unverified"


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One layer's result; `detail` says what was seen where it is not enforced, or by what it is."""

    layer: str
    result: str
    detail: str = ""
