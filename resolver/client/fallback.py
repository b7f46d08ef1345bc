"""A fallback is told: to the service, which counts it, and to whoever describes the Pod."""

from __future__ import annotations

import os

from resolver.client.errors import CannotWrite, FetchError, Mismatch, NotAllowed, Refused, Unavailable
from resolver.client.retries import Passing, Patience

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resolver.client.arguments import Options
    from resolver.client.console import Console

TERMINATION_MESSAGE = "/dev/termination-log"
"""Where a kubelet reads a container's last words (`terminationMessagePath`)."""

_SECONDS = 2.0
_LONGEST = 500  # characters
_REASONS = {
    Refused: "refused",
    Unavailable: "unavailable",
    CannotWrite: "cannot-write",
    Mismatch: "mismatch",
    NotAllowed: "not-allowed",
}


def tell(options: Options, error: Exception, console: Console) -> None:
    """Say once, and not for long, that this Pod does without its bundle, and why. Whoever does not hear it is left."""
    reason = next((word for kind, word in _REASONS.items() if isinstance(error, kind)), "failed")
    detail = (str(error) or type(error).__name__)[:_LONGEST]
    leave(f"lockstep: fallback: {reason}: {detail}", console)
    body = {"reason": reason, "detail": detail, "namespace": options.namespace, "workload": options.workload}
    from resolver.client.transport import Server, Session  # most fetches do not fall back

    try:
        server = Server(options.server, options.token_file, options.ca_file)
        with Session(server, Patience(_SECONDS)) as session:
            session.call("POST", "/v1/fallbacks", body, _SECONDS)
    except (FetchError, Passing) as failure:
        console.say(f"the service does not hear of it: {failure}")


def leave(message: str, console: Console) -> None:
    """Leave the container's last words, where a kubelet has made room for them."""
    try:
        file = os.open(TERMINATION_MESSAGE, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as failure:
        console.say(f"{TERMINATION_MESSAGE} takes no message: {failure.strerror}")
        return
    try:
        os.write(file, message.encode("utf-8", "replace"))
    finally:
        os.close(file)
