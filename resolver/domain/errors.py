"""What can go wrong, as facts. One table (api/problems.py) maps each to an answer.

LockstepError
├── InvalidRequest      the caller's input is not well formed, or not allowed; names line and reason
├── UnsupportedTarget   no such target class; lists what is supported
├── NotFound            a lock, bundle, blob, operation… that is not here
├── Unauthenticated     who is calling?
├── Forbidden           that caller may not
├── RequestTooLarge     the body is over the limit
├── Busy                a queue is full; come back after `retry_after` seconds
├── TimedOut            a bounded wait came to its end
├── IndexUnavailable    a package index did not answer as an index does
├── ContentMismatch     what an index served is not what the lock names
├── InvalidWheel        a wheel that breaks PEP 427, or contradicts its lock
├── DamagedLayer        a layer in the store is not what its digest names
├── EngineFailed        the resolver engine itself failed
├── LayerBuildFailed    a layer could not be built, for no fault of the wheel that is known
└── BuilderUnavailable  no builder could be started for a source distribution, or none came

"No solution", "needs a build" and "targets conflict" are expected outcomes, and so values: see outcomes.py.
"""


class LockstepError(Exception):
    """The root of what Lockstep raises."""


class InvalidRequest(LockstepError):
    """The input is malformed or not allowed.

    `field` is where it is (`requirements`, `constraints`, `target`…), `line` the 1-based line there, `text` that
    line as it came (redacted by whoever shows it).
    """

    def __init__(self, reason: str, *, field: str, line: int | None = None, text: str | None = None) -> None:
        place = field if line is None else f"{field}, line {line}"
        super().__init__(f"{place}: {reason}")
        self.reason = reason
        self.field = field
        self.line = line
        self.text = text


class UnsupportedTarget(LockstepError):
    """No target class fits what was asked for."""

    def __init__(self, asked: str, reason: str, supported: str) -> None:
        super().__init__(f"{asked}: {reason}; supported: {supported}")
        self.asked = asked
        self.reason = reason
        self.supported = supported


class NotFound(LockstepError):
    """`kind` (lock, bundle, blob, operation, pin, package) named `name` is not here."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"no {kind} {name}")
        self.kind = kind
        self.name = name


class Unauthenticated(LockstepError):
    """The call carries no valid token. `challenge` says where to get one (RFC 9110, 11.6.1: `Bearer realm="…"`)."""

    def __init__(self, reason: str, challenge: str | None = None) -> None:
        super().__init__(reason)
        self.challenge = challenge


class Forbidden(LockstepError):
    """The caller is known, and may not do this."""


class RequestTooLarge(LockstepError):
    """The body is over `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is over {limit} bytes")
        self.limit = limit


class Busy(LockstepError):
    """The queue for `what` is full, or another `reason` that passes; try again after `retry_after` seconds."""

    def __init__(self, what: str, retry_after: float, reason: str = "too much under way") -> None:
        super().__init__(f"{what}: {reason}")
        self.what = what
        self.retry_after = retry_after


class TimedOut(LockstepError):
    """`what` was not done within `seconds`."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"{what}: not done within {seconds:g} s")
        self.what = what
        self.seconds = seconds


class IndexUnavailable(LockstepError):
    """The index named `index` could not be used: `cause`, while asking for `about` (a project or a file)."""

    def __init__(self, index: str, about: str, cause: str) -> None:
        super().__init__(f"index {index}, {about}: {cause}")
        self.index = index
        self.about = about
        self.cause = cause


class ContentMismatch(LockstepError):
    """The file that `index` served does not have the hash that the lock names."""

    def __init__(self, file: str, index: str, expected: str, actual: str) -> None:
        super().__init__(f"{file} from index {index}: expected {expected}, got {actual}")
        self.file = file
        self.index = index
        self.expected = expected
        self.actual = actual


class InvalidWheel(LockstepError):
    """The wheel cannot be installed as it was published: `reason`."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


class DamagedLayer(LockstepError):
    """A layer that was to be made part of another is not what its digest names."""


class EngineFailed(LockstepError):
    """The engine ended in a way that is no answer; `output` is the redacted end of what it printed."""

    def __init__(self, engine: str, reason: str, output: str) -> None:
        super().__init__(f"{engine}: {reason}")
        self.engine = engine
        self.reason = reason
        self.output = output


class LayerBuildFailed(LockstepError):
    """The layer of `file` could not be built, for no fault of the wheel that is known; `trace` goes to the log."""

    def __init__(self, file: str, reason: str, trace: str = "") -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason
        if trace:
            self.add_note(trace)


class BuilderUnavailable(LockstepError):
    """No builder could be had; `reason` says why, in words for a person. `may_pass`: whether one may be in a while."""

    def __init__(self, reason: str, *, may_pass: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_pass = may_pass
