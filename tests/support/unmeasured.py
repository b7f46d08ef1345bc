"""Python programs whose coverage nobody asks for: to be traced would only slow them down."""

import os
from collections.abc import Iterator

import pytest


def environment() -> dict[str, str]:
    """This process's, without what has coverage start in every Python."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


@pytest.fixture(scope="package", autouse=True)
def unmeasured() -> Iterator[None]:
    """For a room whose services run what others measure: whole sets of wheels, storms, kills."""
    before = dict(os.environ)
    for name in before.keys() - environment().keys():
        del os.environ[name]
    yield
    os.environ.update({name: value for name, value in before.items() if name.startswith("COVERAGE_")})
