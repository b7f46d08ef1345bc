"""Builders in the cluster, as they are set: part of the composition root (from_source.py)."""

import os
import platform
import re
from urllib.parse import urlsplit

from resolver.builds.job_manifest import BuilderPods
from resolver.builds.jobs import JobLauncher
from resolver.domain.builds import ANY
from resolver.domain.errors import UnsupportedTarget
from resolver.domain.targets import TargetEnvironment
from resolver.kubernetes import ApiServer
from resolver.settings import Settings

_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123, as Kubernetes has it
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")
_CPU = re.compile(r"\d{1,4}(?:\.\d{1,3})?|\d{1,7}m")


def job_launcher(settings: Settings) -> JobLauncher | None:
    """What starts builders, where `builder_namespace` is set.

    Raises:
        ValueError: a setting that is needed is missing, or is none.
    """
    pods = builder_pods(settings)
    if pods is None:
        return None
    server = ApiServer.from_environment(os.environ)
    if server is None:
        raise ValueError("builder_namespace: this is in no cluster (KUBERNETES_SERVICE_HOST)")
    return JobLauncher(server, pods)


def builder_pods(settings: Settings) -> BuilderPods | None:
    """How builders run, as it is set; None where none do. Raises ValueError as `job_launcher`."""
    others = ("builders", "builder_url", "builder_client_image")
    if settings.builder_namespace is None:
        if given := [name for name in others if getattr(settings, name)]:
            raise ValueError(f"{', '.join(given)}: needs builder_namespace too")
        return None
    if missing := [name for name in others if not getattr(settings, name)]:
        raise ValueError(f"builder_namespace: needs {', '.join(missing)} too")
    if not _NAMESPACE.fullmatch(settings.builder_namespace):
        raise ValueError("builder_namespace: not the name of a namespace")
    url, client_image = settings.builder_url or "", settings.builder_client_image or ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ValueError("builder_url: not the URL of a service, such as http://10.1.2.3:8080")
    for place, image in settings.builders.items():
        _check_place(place)
        if not _IMAGE.fullmatch(image):
            raise ValueError(f"builders: what stands behind {place}= is no image")
    if not _IMAGE.fullmatch(client_image):
        raise ValueError("builder_client_image: not an image")
    if not _CPU.fullmatch(settings.builder_cpu):
        raise ValueError("builder_cpu: not an amount of CPUs, such as 1 or 500m")
    return BuilderPods(
        namespace=settings.builder_namespace,
        images=dict(settings.builders),
        url=url.rstrip("/"),
        client_image=client_image,
        cpu=settings.builder_cpu,
        memory=settings.sdist_memory,
        disk=settings.sdist_disk,
        machine=platform.machine(),
    )


def _check_place(place: str) -> None:
    if place == ANY:
        return
    try:
        target = TargetEnvironment.from_name(place)
    except UnsupportedTarget as failure:
        raise ValueError(f"builders: {failure}") from None
    if target.name != place:
        # It would never be asked for.
        raise ValueError(f"builders: {place} is of the target class {target.name}: name that")
