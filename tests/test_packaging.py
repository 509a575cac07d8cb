"""What `pip install` gets: ranges that the tested versions lie in, and a wheel that works in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import refcut_backend
from tests.support.constraints import brought_along
from tests.support.recorded import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def requirements(lines: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(one.name): one for one in map(Requirement, lines)}


def pinned(file_name: str) -> dict[str, Requirement]:
    """The requirements of a file, by name."""
    lines = (REPOSITORY / file_name).read_text().splitlines()
    return requirements([line for line in lines if line and not line.startswith("#")])


@pytest.mark.parametrize(
    ("file_name", "groups"), [("requirements.txt", ("", "postgres")), ("requirements-dev.txt", ("dev",))]
)
def test_the_versions_that_are_tested_are_among_those_that_the_package_allows(
    file_name: str, groups: tuple[str, ...]
):
    extras = PROJECT["optional-dependencies"] | {"": PROJECT["dependencies"]}
    allowed = requirements([line for group in groups for line in extras[group]])
    pins = pinned(file_name)
    assert set(pins) == set(allowed)
    for name, pin in pins.items():
        (version,) = pin.specifier
        assert version.operator == "=="
        assert allowed[name].specifier.contains(version.version), name
        assert (pin.marker, pin.extras) == (allowed[name].marker, allowed[name].extras)


def test_what_the_requirements_bring_along_has_the_versions_that_are_tested():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    fixed = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert brought_along().items() <= fixed.items()


def test_the_reader_of_s3_is_the_tested_one():
    (s3,) = map(Requirement, PROJECT["optional-dependencies"]["s3"])
    (version,) = pinned("requirements-dev.txt")["s3fs"].specifier
    assert s3.specifier.contains(version.version)


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    (image,) = re.findall(
        r"^ARG VERSION=(\S+)$", (REPOSITORY / "docker/Dockerfile").read_text(), re.MULTILINE
    )
    chart = yaml.safe_load((REPOSITORY / "docker/helm/Chart.yaml").read_text())
    assert {
        refcut_backend.__version__,
        PROJECT["version"],
        citation["version"],
        image,
        chart["version"],
        chart["appVersion"],
    } == {PROJECT["version"]}


WORKS = """
import sys
from pathlib import Path
import refcut_backend
from model.checkpoints.version_folder import version_name
from refcut_backend.cli.demo import DEMO_PROJECTS
from refcut_backend.cli.main import app
assert Path(refcut_backend.__file__).is_relative_to(sys.argv.pop(1)), refcut_backend.__file__
for demo in DEMO_PROJECTS:
    assert demo.config_path.is_file()
    assert len(demo.photograph_paths()) == 6
    assert demo.reference_regions()
print(version_name())
app(["--version"])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the working tree, not compressed: the weights do not get smaller."""
    folder = tmp_path_factory.mktemp("package")
    listed = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY, text=True
    )
    for name in listed.splitlines():
        if name.startswith(("benchmarks/", "tests/", "docs/")) or not (REPOSITORY / name).exists():
            continue
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target, follow_symlinks=False)
    build = "from setuptools import build_meta as b; b.build_wheel('..', {'--build-option': '--compression=stored'})"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build], cwd=folder / "source", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_contains_what_ships_with_a_checkout(wheel: Path):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    for package, folder in (("cli", "label_config"), ("playground", "label_studio_demo")):
        shipped = {
            f"refcut_backend/{package}/{folder}/{path.name}" for path in (REPOSITORY / folder).iterdir()
        }
        assert shipped <= names
    assert {"model/MODEL_CARD.md", "model/py.typed", "refcut_backend/py.typed"} <= names
    assert {f"model/weights/s14/{name}.safetensors" for name in ("base", "version")} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    assert any(re.search(r"dist-info/licenses/NOTICE$", name) for name in names)


@pytest.mark.slow
def test_the_wheel_works_where_there_is_no_checkout(wheel: Path, tmp_path: Path):
    with zipfile.ZipFile(wheel) as file:  # a wheel is installed by unpacking it
        file.extractall(tmp_path / "installed")
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", WORKS, str(tmp_path / "installed")],
        cwd=tmp_path / "empty",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shipped, version = done.stdout.splitlines()
    assert shipped.startswith("s14-")
    assert PROJECT["version"] in version
    assert not list((tmp_path / "empty").iterdir())
