"""Which newer versions were passed over for want of a wheel, by what their files are called."""

import pytest
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from resolver.domain.ports import Project, ProjectFile
from resolver.domain.requests import Policy
from resolver.service.wheels_only import Allowed, passed_over
from tests.unit.service.parts import INDEX, TARGET

WHEEL = "demo-1.0-py3-none-any.whl"


def project(*filenames: str, yanked: str | None = None) -> Project:
    url = "https://packages.example.com/files/"
    files = (ProjectFile(name, url + name, None, None, None, None, yanked, None) for name in filenames)
    return Project(canonicalize_name("demo"), INDEX, tuple(files))


def newest(found: Project, specifier: str = "", *, prereleases: bool = False) -> str | None:
    passed = passed_over(
        found, Version("1.0"), Allowed(SpecifierSet(specifier)), TARGET, Policy(prereleases=prereleases)
    )
    return str(passed.newest) if passed else None


@pytest.mark.parametrize("name", ["demo-2.0.tar.gz", "demo-2.0.zip", "demo-demo-2.0.tar.gz"])
def test_a_newer_version_of_which_there_is_only_an_sdist_was_passed_over(name: str) -> None:
    assert newest(project(WHEEL, name)) == "2.0"


@pytest.mark.parametrize(
    "name",
    [
        "demo-1.0.tar.gz",
        "demo-0.9.tar.gz",
        "2.0.tar.gz",
        "-2.0.zip",
        "demo-2.0.egg",
        "demo-two.tar.gz",
        "demo.zip",
        "demo-2.0.zip.tar.gz",
        "demo-2.0-py3-none.whl",
        "demo-2.0-py3-none-any.whl",
        "demo-2.0-cp311-cp311-win32.whl",
    ],
)
def test_what_is_no_newer_sdist_was_not(name: str) -> None:
    assert newest(project(WHEEL, name)) is None


def test_what_is_not_allowed_was_not_passed_over() -> None:
    assert newest(project(WHEEL, "demo-2.0.tar.gz"), "<2") is None
    assert newest(project(WHEEL, "demo-2.0.tar.gz", yanked="broken")) is None
    assert newest(project(WHEEL, "demo-2.0rc1.tar.gz")) is None
    assert newest(project(WHEEL, "demo-2.0rc1.tar.gz"), prereleases=True) == "2.0rc1"
