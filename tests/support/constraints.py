"""Exact versions of everything that the requirements bring along: `constraints.txt`, written from this environment.

    python -m tests.support.constraints > constraints.txt

CUDA's packages are left out: torch's build for processors has none, and the other build names their exact versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.recorded import REPOSITORY

FILES = ("requirements.txt", "requirements-dev.txt")
CUDA = ("nvidia-", "cuda-", "triton")
OLDER_PYTHON = {"async-timeout": "5.0.1"}
"""redis needs it before Python 3.11.3, which is what Debian 12 has."""


def required(file_name: str) -> list[Requirement]:
    """The requirements of a file."""
    lines = (REPOSITORY / file_name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def brought_along(file_names: tuple[str, ...] = FILES) -> dict[str, str]:
    """Return name to version of what the files bring along and do not name themselves.

    Raises:
        PackageNotFoundError: If this environment lacks one of them.
    """
    direct = [requirement for name in file_names for requirement in required(name)]
    named = {canonicalize_name(requirement.name) for requirement in direct}
    found = dict(_closure(direct))
    return {name: found[name] for name in sorted(found.keys() - named)}


def _closure(roots: list[Requirement]) -> Iterator[tuple[str, str]]:
    waiting = list(roots)
    done: set[tuple[str, tuple[str, ...]]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = name, tuple(sorted(requirement.extras))
        extras = ("", *requirement.extras)
        is_wanted = requirement.marker is None or requirement.marker.evaluate()
        if name.startswith(CUDA) or key in done or not is_wanted:
            continue
        done.add(key)
        installed = distribution(name)
        yield name, installed.version
        for line in installed.requires or ():
            needed = Requirement(line)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                needed.marker = None
                waiting.append(needed)


if __name__ == "__main__":
    print(
        "# Versions of what requirements.txt and requirements-dev.txt bring along; the same on Python 3.11 to 3.13."
    )
    print("# Written by `python -m tests.support.constraints`.")
    for name, version in sorted((brought_along() | OLDER_PYTHON).items()):
        print(f"{name}=={version}")
