"""Requirements in, the name of a bundle out: `POST /v1/resolve`, and waiting for it."""

from __future__ import annotations

import re

from resolver.client.errors import Refused, Unavailable, Unknown
from resolver.client.problems import retry_after
from resolver.client.retries import Passing, persist

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from resolver.client.arguments import Options
    from resolver.client.console import Console
    from resolver.client.retries import Patience
    from resolver.client.transport import Session

_WAIT = 20  # seconds that one request stays open before it becomes an operation; short of any proxy's patience
_ANSWER = 15  # seconds on top of it, for the answer itself
_POLL = 0.5  # seconds, where the service does not say
_HEXADECIMAL = frozenset("0123456789abcdef")


class Answer:
    """What the service found. Sizes in bytes: `size` to download, `unpacked_size` to write."""

    def __init__(self, body: dict[str, Any]) -> None:
        """Raises Unavailable where the body is not as the contract has it."""
        try:
            self.bundle = checked_digest(body["bundle"]["digest"])
            self.size = int(body["bundle"]["size"])
            self.unpacked_size = int(body["bundle"]["unpacked_size"])
            self.lock = checked_digest(body["lock"]["digest"])
            self.packages = len(body["lock"]["packages"])
            self.outcome = str(body["outcome"])
            self.warnings = [f"{each['code']}: {each['message']}" for each in body.get("warnings") or ()]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Unavailable(f"the service answered, but not as the contract has it: {error!r}") from error


def checked_digest(text: str) -> str:
    """The digest, once it is sure to be one: it becomes part of paths. Raises ValueError."""
    algorithm, _, digest = text.partition(":")
    if algorithm != "sha256" or len(digest) != 64 or not _HEXADECIMAL.issuperset(digest):
        raise ValueError(f"not a digest: {text[:80]!r}")
    return text


def request(options: Options, target: dict[str, object]) -> dict[str, object]:
    """The request's body, `wait` apart: what is asked for, and nothing of how.

    Raises:
        Refused: the requirements or constraints are not UTF-8.
    """
    body: dict[str, object] = {"requirements": _text("requirements", options.requirements), "target": target}
    if options.constraints is not None:
        body["constraints"] = _text("constraints", options.constraints)
    if options.indexes:
        body["indexes"] = options.indexes
    if options.workload is not None:
        workload = {"namespace": options.namespace, "name": options.workload, "revision": options.revision}
        body["workload"] = {name: value for name, value in workload.items() if value is not None}
    return body


def _text(what: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused(f"the {what} are not UTF-8") from None
    return text.removeprefix("\ufeff")


def resolve(session: Session, body: dict[str, object], patience: Patience, console: Console) -> Answer:
    """Ask until there is an answer.

    Raises:
        Refused, NotAllowed: the service's answer is no.
        Unavailable: it gave none in time.
    """

    def attempt() -> Answer:
        wait = int(min(_WAIT, patience.left()))
        head, answer = session.call("POST", "/v1/resolve", {**body, "wait": wait}, idle=wait + _ANSWER)
        if head.status != 202:
            return Answer(answer)
        path = _operation(head.headers.get("location", ""))
        console.say("the service is at work on it")
        while head.status == 202:
            patience.pause(retry_after(head.headers) or _POLL)
            try:
                head, answer = session.call("GET", path)
            except Unknown as error:  # a service that started anew forgot the operation: ask it again
                raise Passing(error) from error
        return Answer(answer)

    return persist(attempt, patience, console.say)


def _operation(location: str) -> str:
    """The path of an operation; it is asked for where the service is, whatever name the service gives itself."""
    _, found, rest = location.partition("/v1/operations/")
    if not re.fullmatch(r"[\w-]{1,128}", rest):
        raise Passing(Unavailable("the service names no operation to wait for"))
    return found + rest
