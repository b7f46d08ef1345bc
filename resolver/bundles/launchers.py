"""The two programs that layers carry beside what wheels bring: a console script, and the `.pth` hook."""

import hashlib

# Run through `env`, since a bundle is mounted anywhere beside any interpreter of that minor version. Where the bundle
# is not on PYTHONPATH, the script puts its own site-packages first, as PYTHONPATH would, and reads its `.pth` files;
# where it is, the hook below has done that already.
_SCRIPT = """\
#!{interpreter}
import os
import sys

root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
packages = os.path.join(root, "site-packages")
if packages not in map(os.path.realpath, sys.path):
    import site

    sys.path.insert(0, packages)
    site.addsitedir(packages)

from {module} import {name}

if __name__ == "__main__":
    sys.exit({attribute}())
"""

# Python reads `.pth` files in site folders alone, not in those on PYTHONPATH, but imports `sitecustomize` from either.
# Only what follows on sys.path is chained to, so that two bundles with a hook each do not call each other for ever.
PTH_HOOK = b'''\
"""Reads the .pth files beside it, then does what the next sitecustomize on sys.path does."""

import os
import site
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

here = os.path.realpath(os.path.dirname(__file__))
site.addsitedir(os.path.dirname(__file__))

entries = [os.path.realpath(entry) for entry in sys.path]
after = entries.index(here) + 1 if here in entries else len(entries)
spec = PathFinder.find_spec(__name__, [entry for entry in sys.path[after:] if os.path.realpath(entry) != here])
if spec is not None and spec.loader is not None:
    sys.modules[__name__] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[__name__])
'''

# Names both programs' texts, for whoever must know that a layer would come out otherwise today.
FINGERPRINT = hashlib.sha256(_SCRIPT.encode() + PTH_HOOK).hexdigest()[:16]


def interpreter(python: str) -> str:
    """What stands behind `#!` for a minor version such as `3.12`."""
    return f"/usr/bin/env python{python}"


def console_script(python: str, module: str, attribute: str) -> bytes:
    """The program for an entry point `module:attribute`."""
    return _SCRIPT.format(
        interpreter=interpreter(python), module=module, name=attribute.partition(".")[0], attribute=attribute
    ).encode()
