"""The flags of a fetch, as they stand on a command line.

Each has a value, so there is little to be parsed; `argparse` would cost a small fetch a fifth of its CPU.
"""

from __future__ import annotations

from resolver.client.errors import BadUsage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_TIMEOUT = 300.0

FLAGS = {  # by name, what stands for the value in the help, and what it is
    "server": ("URL", "where the service is"),
    "target": ("DIR", "where site-packages and bin shall appear"),
    "requirements": ("FILE", "a requirements file (-: standard input)"),
    "requirement": ("STR", "one requirement; can be repeated"),
    "constraints": ("FILE", "a constraints file"),
    "index": ("NAME", "an index the operator configured; can be repeated"),
    "namespace": ("N", "the workload's namespace (default: the one that the token is for)"),
    "workload": ("W", "the workload whose replicas shall agree"),
    "revision": ("R", "the workload's revision"),
    "python": ("V", "for this Python instead of the running one, with --platform"),
    "platform": ("TAG", "for this platform, such as musllinux_1_2_x86_64"),
    "token_file": ("F", "a file with the token to show"),
    "ca_file": ("F", "certificates to trust"),
    "timeout": ("S", f"seconds for all of it (default: {DEFAULT_TIMEOUT:g})"),
    "on_failure": ("fail|fallback", "fallback: leave the requirements in DIR/requirements.txt"),
}
_SHORT = {"-r": "--requirements", "-c": "--constraints"}
_USAGE = """\
usage: lockstep fetch --server URL --target DIR (-r FILE | --requirement STR …) [flags]

Ask the service for the bundle of these requirements, and put it in place.

{flags}
Every flag can be set as LOCKSTEP_<FLAG>; LOCKSTEP_REQUIREMENTS and LOCKSTEP_CONSTRAINTS hold the text itself.
Exit codes: 0 ready, 64 bad usage, 65 cannot be satisfied or not allowed, 69 unavailable, 73 cannot write,
76 wrong bytes, 77 no access.
"""


def spelled(name: str) -> str:
    """The flag as it is written."""
    return "--" + name.replace("_", "-")


def read_flags(words: Sequence[str]) -> dict[str, list[str]]:
    """The values of each flag that is given, in their order. They may stand as `--flag value` and `--flag=value`, or as
    `-f value` and `-fvalue`.

    Raises:
        BadUsage: naming the flag, with no value.
    """
    names = {spelled(name): name for name in FLAGS}
    given: dict[str, list[str]] = {}
    left = iter(words)
    for word in left:
        if word.startswith("--"):
            flag, attached, value = word.partition("=")
        else:
            flag, attached, value = _SHORT.get(word[:2], word[:2]), word[2:], word[2:]
        if flag not in names:
            what = f"unknown flag {flag}" if flag.startswith("-") else "an argument that belongs to no flag"
            raise _bad(what)
        if not attached:
            following = next(left, None)
            if following is None or following.partition("=")[0] in (*names, *_SHORT):
                raise _bad(f"{flag} is given without a value")
            value = following  # which may begin with a dash, as the line `-e .` of a requirements file does
        given.setdefault(names[flag], []).append(value)
    return given


def usage() -> str:
    """What --help tells."""
    short = {flag: f"{letter}, " for letter, flag in _SHORT.items()}
    heads = [f"{short.get(spelled(name), '')}{spelled(name)} {value}" for name, (value, _) in FLAGS.items()]
    width = max(map(len, heads))
    lines = [f"  {head:{width}}  {text}\n" for head, (_, text) in zip(heads, FLAGS.values(), strict=True)]
    return _USAGE.format(flags="".join(lines))


def _bad(message: str) -> BadUsage:
    return BadUsage(message, ("lockstep fetch --help lists the flags",))
