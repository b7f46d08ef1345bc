"""What the injected init container runs, as the text of `python3 -I -c`: brings the client, checks it, runs it.

It stands in the Pod's spec, so it imports the standard library alone and holds no reference to a variable, which
Kubernetes would expand. It is the one part of a delivery that needs nobody's answer: whatever fails, the Pod starts as
it would without it.
"""

import argparse
import hashlib
import http.client
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import urllib.request

DOWNLOAD_SECONDS = 15
TELL_SECONDS = 2
TERMINATION_MESSAGE = pathlib.Path("/dev/termination-log")
MARGIN_SECONDS = 30  # for the client's own end, once its time is up
CANNOT_WRITE = 73
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
    kind = "no-client"
    try:
        if options.pip_conf and options.pip_conf.is_file():
            kind = "private-index"
            raise OSError("a pip.conf names an index of its own")
        # Killed for its memory, say, it would be so again, and the Pod would never start.
        attempt.touch(exist_ok=False)
        client = bring(target / "lockstep.pyz", options.digest)
        seconds = float(os.environ["LOCKSTEP_TIMEOUT"]) + MARGIN_SECONDS
        argv = [sys.executable or "python3", "-I", str(client), *command]
        kind = "failed"
        code = subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=seconds, check=False).returncode
        kind = "cannot-write" if code == CANNOT_WRITE else "failed"
        reason = f"the client ended with {code}"
    except FileExistsError:
        code, kind, reason = 69, "killed", "the attempt before this one was killed"
    except subprocess.TimeoutExpired as failure:
        code, kind, reason = 69, "timed-out", f"the client was not done within {failure.timeout:g} s"
    except (OSError, ValueError, subprocess.SubprocessError) as failure:
        code, reason = 69, str(failure) or type(failure).__name__
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
        tell(kind, reason)
    elif aside is not None and left.is_file() and not left.stat().st_size:
        options.requirements.replace(aside)
        options.requirements.touch()
    return 0


def tell(kind: str, reason: str) -> None:
    """Once, and not for long: to the service, which counts it, and to whoever describes the Pod."""
    try:
        if TERMINATION_MESSAGE.exists():
            TERMINATION_MESSAGE.write_text(f"lockstep: fallback: {kind}: {reason}"[:500])
    except OSError as failure:
        print(f"lockstep: {failure}", file=sys.stderr)
    body = {"reason": kind, "detail": reason[:500]}
    for name in ("namespace", "workload"):
        body |= {name: os.environ[f"LOCKSTEP_{name.upper()}"]} if f"LOCKSTEP_{name.upper()}" in os.environ else {}
    # A thread, because the time-out of a connection is for each wait, not for all of them.
    telling = threading.Thread(target=post, args=(json.dumps(body).encode(),), daemon=True)
    try:
        telling.start()
        telling.join(TELL_SECONDS)
    except RuntimeError as failure:  # so many processes and threads, and no more
        print(f"lockstep: {failure}", file=sys.stderr)


def post(body: bytes) -> None:
    """Tell the service of a fallback."""
    headers = {"Content-Type": "application/json"}
    try:
        if token := os.environ.get("LOCKSTEP_TOKEN_FILE"):
            headers["Authorization"] = "Bearer " + pathlib.Path(token).read_text().strip()
        url = os.environ["LOCKSTEP_SERVER"].rstrip("/") + "/v1/fallbacks"
        request = urllib.request.Request(url, body, headers)  # noqa: S310 - the webhook wrote it
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(request, timeout=TELL_SECONDS).close()
    except (OSError, ValueError, http.client.HTTPException) as failure:
        print(f"lockstep: the service does not hear of it: {failure}", file=sys.stderr)


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
    try:
        with opener.open(url, timeout=5) as answer:
            while chunk := answer.read1(1 << 16):
                parts.append(chunk)
                size += len(chunk)
                if size > LARGEST or time.monotonic() > end:
                    raise OSError("the client did not arrive in time")
    except http.client.HTTPException as failure:  # what answers speaks something else
        raise OSError(f"{type(failure).__name__}: {failure}") from failure
    return b"".join(parts)


def wanted(file: pathlib.Path | None) -> bytes:
    """The requirements as they were given; none where they were optional and are not there."""
    if file is None:
        return os.fsencode(os.environ.get("LOCKSTEP_REQUIREMENTS", ""))
    return file.read_bytes() if file.exists() else b""


if __name__ == "__main__":
    sys.exit(main())
