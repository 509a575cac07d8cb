"""Identifies projects: Label Studio's number of a project is not enough.

Every Label Studio numbers its projects from 1, so several of them, or one that was installed anew, use the same numbers.
A project is identified by the address of its Label Studio, its number and the time of its creation. The database gives
each identity a project id of its own, under which everything about the project is stored:

    number 7, first identity     project id 7                shown as 7
    number 7, second identity    project id 1000000000007    shown as 7#2

So the project id of the first identity is its number, and both can be computed from a project id.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from refcut_backend.errors import ConfigError

NO_PROJECT = 0
"""Stands for clicks without a project: those of the playground, and a worker's first one. Label Studio counts from 1."""
STRIDE = 10**12
"""Project ids of one number differ by this. Label Studio's own numbers are smaller."""
MAX_PLACES = 999
"""Largest number of projects of one number; `ProjectChoice` reads all of their names."""
_REQUEST = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,20}))?")
_COMMAND = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,20})|#([1-9][0-9]{0,2}))?")
_PAGE = re.compile(r"(https?://\S+?)/(?:api/)?projects/([0-9]{1,12})(?:[/?#]\S*)?")


@dataclass(frozen=True)
class ProjectRef:
    """A project as a request names it.

    Attributes:
        number: Label Studio's number of the project.
        created: When it was created, in whole seconds since 1970, as Label Studio writes it; None if the request
            lacks it.
    """

    number: int
    created: str | None = None

    @classmethod
    def read(cls, value: object) -> ProjectRef:
        """Reads "2.1795342440" (number and creation) or 2. Raises ValueError for anything else."""
        match = _REQUEST.fullmatch(str(value))
        if not match or not int(match[1]):
            raise ValueError("a project id is a number, as Label Studio sends it")
        return cls(int(match[1]), match[2])


@dataclass(frozen=True)
class ProjectChoice:
    """A project as a person names it on the command line. What is None is not restricted.

    Attributes:
        number: Label Studio's number of the project.
        created: When it was created, as in `ProjectRef`.
        place: The number behind "#".
        label_studio: Address of its Label Studio.
    """

    number: int
    created: str | None = None
    place: int | None = None
    label_studio: str | None = None

    @classmethod
    def read(cls, text: str) -> ProjectChoice:
        """Reads "7", "7#2", "7.1795342440" or the address of a page of the project in Label Studio.

        Raises:
            ConfigError: The text is none of these.
        """
        text = text.strip()
        if (page := _PAGE.fullmatch(text)) and int(page[2]):
            return cls(int(page[2]), label_studio=page[1])
        match = _COMMAND.fullmatch(text)
        if not match or not int(match[1]):
            raise ConfigError(
                f"--project {text[:100]!r} names no project",
                hint="give its number (7), 7#2 as `refcut projects list` shows it, or its address in Label Studio",
            )
        return cls(int(match[1]), match[2], int(match[3]) if match[3] else None)


def project_id_of(number: int, place: int) -> int:
    """Returns the project id of the identity at a place, counted from 1, among those of one number."""
    return number + (place - 1) * STRIDE


def number_of(project_id: int) -> int:
    """Returns Label Studio's number of a project."""
    return project_id % STRIDE


def project_name(project_id: int) -> str:
    """Returns how a project is shown: "7", and "7#2" for the second project 7."""
    number, place = project_id % STRIDE, project_id // STRIDE + 1
    return str(number) if place == 1 else f"{number}#{place}"
