"""Address and token of a project's Label Studio."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Connection:
    """How to reach a project's Label Studio.

    Attributes:
        label_studio: Address at which it is called, base path included.
        access_token: Its token. Never appears in a repr.
        known_as: Address that it reports for itself, if another one is called. Addresses in its tasks begin with it.
        project_created: When the project was created, in seconds since 1970 as Label Studio writes it; None if unknown.
    """

    label_studio: str
    access_token: str = field(repr=False)
    known_as: str = ""
    project_created: str | None = None
