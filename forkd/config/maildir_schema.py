"""[transport.NAME] kind = "maildir": what may be set?"""

from __future__ import annotations

from typing import Final, Literal

from forkd.config.table import Table

FIELDS: Final = ("domain", "user", "detail")
"""What may stand in a path, in braces."""


class Maildir(Table, frozen=True, tag_field="kind", tag="maildir"):
    """[transport.NAME] kind = "maildir"."""

    path: str = "mail/{domain}/{user}"
    """{domain}, {user}, {detail}: made safe for a path; relative to data_dir. A part of the path that has
    {detail} in it is left out where an address has none. Without {user}: one Maildir for all of a domain."""
    catch_all: str = ""
    """Maildir for users whose own is not there: then none is made for them. Like path; "": each is made with
    its first mail."""
    subfolder: Literal["never", "existing", "create"] = "never"
    """Does user+NAME go to the folder NAME of the user's Maildir (.NAME, Maildir++)? Where it is there, else
    to the inbox, as Dovecot's LDA does it; or made with its first mail: who sends decides then."""
    unusual: Literal["encode", "refuse"] = "encode"
    """Names with other octets than small letters, digits and . _ = + -: with %XX in their place, so that none
    leads elsewhere or is another's; or failed, 5.1.1, where only such names are read by the mail store."""
    group: bool = False
    """The folder's group may read and write too (0660, 0770): for a mail store that runs as another user."""
