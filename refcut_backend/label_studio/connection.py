"""Which Label Studio a project lives in."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Connection:
    """Where a project's images are. The token never shows in a repr.

    label_studio: address at which it is asked, base path included. known_as: what it calls itself, when that differs:
    addresses in its tasks begin with this one.
    """

    label_studio: str
    access_token: str = field(repr=False)
    known_as: str = ""
