"""`lock`: requirements in, a pylock.toml out (PEP 751)."""

from __future__ import annotations

import argparse
import hashlib
import secrets
import sys
from pathlib import Path
from typing import Any

from resolver.cli import remote
from resolver.cli.command import Command
from resolver.cli.output import say
from resolver.client import environment
from resolver.client.errors import BadUsage, CannotWrite, Mismatch, Refused
from resolver.client.resolve import checked_digest

_WAIT = 20  # seconds that one request stays open before it becomes an operation; short of any proxy's patience
_ANSWER = 15  # seconds on top of it, for the answer itself
_STDIO = Path("-")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Ask for a lock and write it as pylock.toml (PEP 751). Several platforms are asked for in turn; where their "
        "locks differ, each is written to a file of its own: pylock.<platform>.toml beside the output."
    )
    add = parser.add_argument
    add("-r", "--requirements", metavar="FILE", type=Path, required=True, help="a requirements file (-: from stdin)")
    add("-c", "--constraints", metavar="FILE", type=Path, help="a constraints file")
    add("--python", metavar="V", help="for this Python, such as 3.12 (default: the one that runs this)")
    add(
        "--platform",
        metavar="TAG",
        action="append",
        help="for this platform, such as musllinux_1_2_x86_64; can be repeated (default: this machine's)",
    )
    add("--index", metavar="NAME", action="append", help="an index the operator configured; can be repeated")
    add(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        default=Path("pylock.toml"),
        help="where to write the lock (-: to stdout; default: pylock.toml)",
    )
    remote.add_arguments(parser, timeout=600)


def _lock(options: argparse.Namespace) -> int:
    platforms = list(dict.fromkeys(options.platform or ()))
    if options.output == _STDIO and len(platforms) > 1:
        raise BadUsage("standard output takes the lock of one --platform")
    asked: dict[str, Any] = {"requirements": _read(options.requirements)}
    if options.constraints is not None:
        asked["constraints"] = _read(options.constraints)
    if options.index:
        asked["indexes"] = options.index
    targets = [_target(options.python, platform) for platform in platforms or [None]]
    with remote.connect(options) as service:
        locks = [_obtain(service, {**asked, "target": target}) for target in targets]
    if len(set(locks)) == 1:
        _write(options.output, locks[0])
    else:
        for platform, content in zip(platforms, locks, strict=True):
            _write(_beside(options.output, platform), content)
    return 0


def _target(python: str | None, platform: str | None) -> dict[str, object]:
    """What is not named is taken from the interpreter that runs this.

    Raises:
        BadUsage: it runs on something that there are no targets for.
    """
    if platform is None and sys.platform != "linux":
        raise BadUsage(f"Lockstep locks for Linux, and this is {sys.platform}: --platform says for which")
    if platform is None and python is None:
        return environment.target()
    if platform is None:
        family, _, version = environment.libc().partition(" ")
        tag = {"glibc": "manylinux", "musl": "musllinux"}[family]
        platform = f"{tag}_{version.replace('.', '_')}_{environment.markers()['platform_machine']}"
    return {"python": python or environment.markers()["python_version"], "platform": platform}


def _obtain(service: remote.Remote, body: dict[str, Any]) -> bytes:
    """The lock for one target; says on standard error how it came about."""
    answer = _resolve(service, body)
    with remote.as_agreed():
        digest = checked_digest(answer["lock"]["digest"])
        target = answer["target"]
        say(
            f"Python {target['python']}, {target['platform']}: {len(answer['lock']['packages'])} packages, "
            f"lock {digest}, {answer['outcome']}"
        )
        for warning in answer["warnings"]:
            say(f"warning: {warning['code']}: {warning['message']}")
    content = service.send("GET", f"/v1/locks/{digest}/pylock.toml").content
    if (actual := f"sha256:{hashlib.sha256(content).hexdigest()}") != digest:
        raise Mismatch(f"what arrived as lock {digest} is {actual}")
    return content


def _resolve(service: remote.Remote, body: dict[str, Any]) -> dict[str, Any]:
    """The answer, however long the service works on it, within the command's time."""
    wait = int(min(_WAIT, service.patience.left()))
    reply = service.send("POST", "/v1/resolve", body={**body, "wait": wait}, idle=wait + _ANSWER)
    if reply.status == 202:
        say("the service is at work on it")
    return service.follow(reply).json()


def _read(path: Path) -> str:
    try:
        content = sys.stdin.buffer.read() if path == _STDIO else path.read_bytes()
    except OSError as error:
        raise BadUsage(f"cannot read {path}: {error.strerror}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refused(f"{path} is not UTF-8") from None


def _beside(path: Path, platform: str) -> Path:
    """PEP 751, "File Name": `pylock.toml`, or `pylock.<name>.toml` with a name without a dot."""
    joint = "." if path.stem == "pylock" else "-"
    return path.with_name(f"{path.stem}{joint}{platform}{path.suffix}")


def _write(path: Path, content: bytes) -> None:
    """All of the file or none of it: whoever reads it meanwhile sees the old one, or the new."""
    if path == _STDIO:
        sys.stdout.buffer.write(content)
        return
    staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        try:
            staged.write_bytes(content)
            staged.replace(path)
        finally:
            staged.unlink(missing_ok=True)
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror}") from error
    say(f"wrote {path}")


LOCK = Command(_arguments, _lock)
