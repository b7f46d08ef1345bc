"""The environment of Python programs whose coverage nobody asks for; to be traced would only slow them down."""

import os


def environment() -> dict[str, str]:
    """This process's, without what has coverage start in every Python."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
