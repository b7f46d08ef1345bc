"""What the injected init container runs, as the text of `python3 -I -c`: brings the client, checks it, runs it.

It stands in the Pod's spec, so it imports the standard library alone and holds no reference to a variable, which
Kubernetes would expand. It is the one part of a delivery that needs nobody's answer: whatever fails, the Pod starts as
it would without it.
"""

import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import time
import urllib.request

DOWNLOAD_SECONDS = 15
MARGIN_SECONDS = 30  # for the client's own end, once its time is up
LARGEST = 16 * 1024 * 1024


def main() -> int:
    """Deliver, or leave all as it was; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("digest", help="SHA-256 of the client")
    parser.add_argument("--requirements", type=pathlib.Path, help="a file with them; else LOCKSTEP_REQUIREMENTS")
    parser.add_argument("--move-aside", action="store_true", help="leave that file empty where the bundle is in place")
    parser.add_argument("--pip-conf", type=pathlib.Path, help="where a private index would be configured")
    options = parser.parse_args()
    target = pathlib.Path(os.environ["LOCKSTEP_TARGET"])
    attempt = target / "attempt"
    aside = None
    if options.move_aside:
        aside = options.requirements.with_name(".requirements.lockstep")
        if aside.exists():  # by a run before the Pod's sandbox was made anew
            aside.replace(options.requirements)
    command = ["fetch", "--requirements", str(options.requirements)] if options.requirements else ["fetch"]
    try:
        if options.pip_conf and options.pip_conf.is_file():
            raise OSError("a pip.conf names an index of its own")
        # Killed for its memory, say, it would be so again, and the Pod would never start.
        attempt.touch(exist_ok=False)
        client = bring(target / "lockstep.pyz", options.digest)
        seconds = float(os.environ["LOCKSTEP_TIMEOUT"]) + MARGIN_SECONDS
        argv = [sys.executable or "python3", "-I", str(client), *command]
        code = subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=seconds, check=False).returncode
        reason = f"the client ended with {code}"
    except FileExistsError:
        code, reason = 69, "the attempt before this one was killed"
    except (OSError, ValueError, subprocess.SubprocessError) as failure:
        code, reason = 69, str(failure)
    finally:
        attempt.unlink(missing_ok=True)
    left = target / "requirements.txt"
    if code:
        print(f"lockstep: failed: {reason}", file=sys.stderr)
        if os.environ.get("LOCKSTEP_ON_FAILURE") != "fallback":
            return code
        print("lockstep: fallback: the Pod starts as it would without Lockstep", file=sys.stderr)
        if aside is None:
            left.write_bytes(wanted(options.requirements))
    elif aside is not None and left.is_file() and not left.stat().st_size:
        options.requirements.replace(aside)
        options.requirements.touch()
    return 0


def bring(path: pathlib.Path, digest: str) -> pathlib.Path:
    """The client in this file, fetched unless it is there. Raises OSError where it cannot be had as it should be."""
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest:
        return path
    # The service is in the cluster: no proxy that the image names is on the way.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + DOWNLOAD_SECONDS
    while True:
        try:
            content = download(opener, end)
            if hashlib.sha256(content).hexdigest() == digest:
                path.write_bytes(content)
                return path
            # While the service is replaced by another version, old and new answer in turn.
            raise OSError("what arrived as the client is another")
        except OSError:
            if time.monotonic() + 1 > end:
                raise
        time.sleep(1)


def download(opener: urllib.request.OpenerDirector, end: float) -> bytes:
    """The bytes that the service has as the client."""
    url = os.environ["LOCKSTEP_SERVER"].rstrip("/") + "/client/lockstep.pyz"
    parts = []
    size = 0
    with opener.open(url, timeout=5) as answer:
        while chunk := answer.read1(1 << 16):
            parts.append(chunk)
            size += len(chunk)
            if size > LARGEST or time.monotonic() > end:
                raise OSError("the client did not arrive in time")
    return b"".join(parts)


def wanted(file: pathlib.Path | None) -> bytes:
    """The requirements as they were given; none where they were optional and are not there."""
    if file is None:
        return os.fsencode(os.environ.get("LOCKSTEP_REQUIREMENTS", ""))
    return file.read_bytes() if file.exists() else b""


if __name__ == "__main__":
    sys.exit(main())
