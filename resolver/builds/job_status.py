"""How it stands with a Job of one Pod, as its status and the Pod's tell, in words for a person."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from resolver.domain.redaction import redact
from resolver.kubernetes import Document

_MOST = 400
# A kubelet tries these again and again, and nobody will mend them before the build's time is up.
_NEVER_STARTS = frozenset({
    *("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"),
    *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """`over`: it has ended, or will never begin. `stuck`: as things are it cannot begin, which may pass: nodes are
    added, a quota gets free. `told` says how or why."""

    state: Literal["over", "stuck", "under way"]
    told: str


def look(job: Document, pods: Sequence[Document]) -> Seen:
    """What a Job and its Pods tell."""
    newest = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), default=None)
    of_pod = _look_at_pod(newest) if newest is not None else None
    for condition in job.get("status", {}).get("conditions") or ():
        if condition.get("status") != "True" or condition.get("type") not in ("Complete", "Failed"):
            continue
        # A Job that is out of time takes its Pod away; of any other end the Pod knows more.
        if of_pod is not None and of_pod.state == "over" and condition.get("reason") != "DeadlineExceeded":
            return of_pod
        return Seen("over", _worded("its Job", condition))
    if of_pod is None:
        told = "no Pod was made for its Job: a quota of the namespace, or what it admits (the namespace's events say)"
        return Seen("stuck", told)
    return of_pod


def _look_at_pod(pod: Document) -> Seen:
    status = pod.get("status", {})
    for name, state in _containers(status):
        if (waiting := state.get("waiting")) and waiting.get("reason") in _NEVER_STARTS:
            return Seen("over", _worded(f"its container {name} cannot start", waiting))
        if (terminated := state.get("terminated")) and (terminated.get("exitCode") or name == "builder"):
            return Seen("over", _ended(name, terminated))
    if status.get("phase") in ("Failed", "Succeeded"):
        return Seen("over", _worded("its Pod has ended", status))  # evicted, refused by the node, its node gone
    for condition in status.get("conditions") or ():
        if (condition.get("type"), condition.get("status")) == ("PodScheduled", "False"):
            return Seen("stuck", _worded("no node takes its Pod", condition))
    return Seen("under way", f"its Pod is {_fit(str(status.get('phase') or 'Pending')).lower()}")


def _containers(status: Document) -> Iterator[tuple[str, Document]]:
    for each in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        yield str(each.get("name")), each.get("state") or {}


def _ended(name: str, terminated: Document) -> str:
    code, reason = terminated.get("exitCode"), str(terminated.get("reason") or "")
    if reason == "OOMKilled":
        return f"its container {name} was killed: it had more memory than its limit (OOMKilled)"
    how = f"its container {name} ended with exit code {code}"
    told = _fit(str(terminated.get("message") or ""))
    if reason not in ("", "Error", "Completed"):
        how += f" ({_fit(reason)})"
    return f"{how}: {told}" if told else how


def _worded(what: str, told: Document) -> str:
    words = (_fit(str(told.get(key) or "")) for key in ("reason", "message"))
    return ": ".join([what, *filter(None, words)])


def _fit(text: str) -> str:
    """Some of it is a container's own: fit to be shown, redacted before it is cut, its end kept."""
    return redact(" ".join("".join(c if c.isprintable() else " " for c in text).split()))[-_MOST:]
