"""Builders as Kubernetes Jobs: one Job of one Pod for one build, deleted with it."""

import asyncio
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from resolver.builds.job_manifest import BuilderPods, job, secret
from resolver.builds.job_status import look
from resolver.domain.errors import BuilderUnavailable
from resolver.kubernetes import ApiFault, ApiServer, Document

RIGHTS = (
    ("batch", "jobs", "create"),
    ("batch", "jobs", "get"),
    ("batch", "jobs", "delete"),
    ("", "pods", "list"),
    ("", "secrets", "create"),
)
"""All that is asked of the API server: API group, resource and verb, in the builders' namespace."""

_FIRST_USER, _USERS = 61184, 4000  # as in a sandbox on a host
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0
_PATIENCE = 120.0
_LATE = 30.0  # after a Job's deadline, for its controller to say so
_PAUSES = (1.0, 3.0, 9.0)  # before what failed is tried again
_REMOVED_WITHIN = 20.0  # less than a service has to stop
_NO_LABEL = re.compile(r"[^A-Za-z0-9_.-]+")

log = structlog.get_logger(__name__)


class JobLauncher:
    """BuilderLauncher in a cluster. `patience` is for how many seconds a builder may be unable to begin."""

    def __init__(self, api: ApiServer, pods: BuilderPods, *, patience: float = _PATIENCE) -> None:
        self._api = api
        self._pods = pods
        self._patience = patience
        self._replica = _NO_LABEL.sub("-", socket.gethostname())[:63].strip("-_.")
        self._removing: set[asyncio.Task[None]] = set()

    async def missing(self, place: str) -> str | None:
        """See BuilderLauncher."""
        if place in self._pods.images:
            return None
        return f"no builder image for {place}: set `builders`"

    @asynccontextmanager
    async def launch(self, place: str, token: str, seconds: float) -> "AsyncIterator[BuilderJob]":
        """See BuilderLauncher."""
        if missing := await self.missing(place):
            raise BuilderUnavailable(missing)
        name = f"lockstep-build-{secrets.token_hex(8)}"
        user = _FIRST_USER + secrets.randbelow(_USERS)
        asked = job(self._pods, place, name, seconds, user=user, replica=self._replica)
        refused = False
        try:
            try:
                made = await self._create(jobs_path(self._pods.namespace), asked)
                made = made or await self._api.call("GET", self._path(name))
            except ApiFault as fault:
                refused = not fault.may_pass
                raise BuilderUnavailable(self._why(fault), may_pass=fault.may_pass) from fault
            try:
                # Owned by the Job, which has an id only now; the Pod waits for it.
                shown = secret(self._pods, name, _uid(made), token)
                await self._create(f"/api/v1/namespaces/{self._pods.namespace}/secrets", shown)
            except ApiFault as fault:
                raise BuilderUnavailable(self._why(fault), may_pass=fault.may_pass) from fault
            log.info("builder.started", job=name, namespace=self._pods.namespace, place=place)
            yield BuilderJob(self._api, self._pods.namespace, name, seconds, self._patience)
        finally:
            if not refused:  # it is there, or nobody knows
                # Shielded: who is cancelled once more meanwhile leaves it to itself.
                removing = asyncio.create_task(self._remove(name))
                self._removing.add(removing)
                removing.add_done_callback(self._removing.discard)
                await asyncio.shield(removing)

    async def _create(self, path: str, document: Document) -> Document | None:
        """What was made; None: it is there, of an attempt before whose answer did not arrive. Raises ApiFault."""
        pauses = iter(_PAUSES)
        while True:
            try:
                return await self._api.call("POST", path, body=document)
            except ApiFault as fault:
                if fault.status == 409:
                    return None
                pause = next(pauses, None)
                if pause is None or not fault.may_pass:
                    raise
                await asyncio.sleep(pause)

    async def _remove(self, name: str) -> None:
        try:
            async with asyncio.timeout(_REMOVED_WITHIN):
                await self._delete(name)
        except (ApiFault, TimeoutError) as failure:
            # It ends at its deadline by itself, and is collected a while after that.
            cause = str(failure) or f"not done within {_REMOVED_WITHIN:g} s"
            log.warning("builder.left-behind", job=name, namespace=self._pods.namespace, cause=cause)

    async def _delete(self, name: str) -> None:
        pauses = iter(_PAUSES)
        while True:
            try:
                await self._api.call("DELETE", self._path(name), params={"propagationPolicy": "Background"})
            except ApiFault as fault:
                if fault.status == 404:
                    return
                pause = next(pauses, None)
                if pause is None or not fault.may_pass:
                    raise
                await asyncio.sleep(pause)
            else:
                return

    def _path(self, name: str) -> str:
        return f"{jobs_path(self._pods.namespace)}/{name}"

    def _why(self, fault: ApiFault) -> str:
        namespace = self._pods.namespace
        if fault.status == 404:
            return f"the namespace {namespace}, where builders run, is not there: {fault}"
        if fault.status in (401, 403):
            # Rights, a quota, what the namespace admits: the message tells which of them.
            return f"the cluster does not let the service start a builder in the namespace {namespace}: {fault}"
        if fault.status is None:
            return f"no builder could be asked for in the namespace {namespace}: {fault}"
        return f"no builder could be started in the namespace {namespace}: status {fault.status}: {fault}"


class BuilderJob:
    """Launched: one Job."""

    def __init__(self, api: ApiServer, namespace: str, name: str, seconds: float, patience: float) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._seconds = seconds
        self._patience = patience
        self._started = time.monotonic()

    async def ended(self) -> str:
        """See Launched."""
        pause, stuck_since = _SHORTEST_PAUSE, None
        last = "it was never looked at"
        while (now := time.monotonic()) < self._started + self._seconds + _LATE:
            try:
                seen = look(*await self._status())
            except ApiFault as fault:
                if fault.status == 404:
                    return self._so("its Job was deleted by somebody else")
                last = f"the API server does not tell: {fault}"
            else:
                if seen.state == "over":
                    return self._so(seen.told)
                stuck_since = (stuck_since or now) if seen.state == "stuck" else None
                if stuck_since is not None and now - stuck_since >= self._patience:
                    return self._so(f"it could not begin for {self._patience:g} s: {seen.told}")
                last = seen.told
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, _LONGEST_PAUSE)
        return self._so(f"it has not ended within {self._seconds:g} s; what was seen last: {last}")

    async def _status(self) -> tuple[Document, list[Document]]:
        found = await self._api.call("GET", f"{jobs_path(self._namespace)}/{self._name}")
        of_job = {"labelSelector": f"batch.kubernetes.io/job-name={self._name}"}
        pods = await self._api.call("GET", f"/api/v1/namespaces/{self._namespace}/pods", params=of_job)
        return found, pods.get("items") or []

    def _so(self, told: str) -> str:
        return f"{told} (Job {self._name} in the namespace {self._namespace})"


def _uid(made: Document) -> str:
    uid = (made.get("metadata") or {}).get("uid")
    if not isinstance(uid, str):
        raise ApiFault("what the API server answers is no Job")
    return uid


def jobs_path(namespace: str) -> str:
    """Where the API server has the Jobs of a namespace."""
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"
