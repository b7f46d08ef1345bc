"""Builders: whether the cluster lets the service start them, and for what there is an image."""

import os
import secrets

from resolver import builders
from resolver.builds.job_manifest import BuilderPods, job
from resolver.builds.jobs import RIGHTS, jobs_path
from resolver.doctor.findings import Finding, note, well, wrong
from resolver.domain.builds import ANY
from resolver.kubernetes import ApiFault, ApiServer
from resolver.settings import Settings

CHECK = "builders"

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_NOBODY = 65534


async def check_builders(settings: Settings) -> list[Finding]:
    """Nothing where builds run in the service's own sandbox."""
    try:
        pods = builders.builder_pods(settings)
    except ValueError as failure:
        return [wrong(CHECK, "settings", str(failure), "`serve` does not start with these")]
    if pods is None:
        return []
    server = ApiServer.from_environment(os.environ)
    if server is None:
        told = "this is in no cluster (KUBERNETES_SERVICE_HOST)"
        return [_images(settings, pods), wrong(CHECK, "cluster", told, "run it in the service's own Pod")]
    try:
        return [_images(settings, pods), await _rights(server, pods), await _admitted(server, pods)]
    except ApiFault as fault:
        way_out = "the way to the API server (networkPolicy.apiServer), and the service's own token and CA"
        return [_images(settings, pods), wrong(CHECK, "cluster", f"cannot be asked: {fault}", way_out)]


def _images(settings: Settings, pods: BuilderPods) -> Finding:
    told, about = f"for {', '.join(sorted(pods.images))}", "images"
    policies = {settings.builds, *settings.namespace_builds.values()}
    if ANY not in pods.images:
        way_out = f"`builders`: {ANY}=IMAGE (builders.images.{ANY})"
        return wrong(CHECK, about, f"{told}: what any platform installs cannot be built", way_out)
    if "native" not in policies or len(pods.images) > 1:
        return well(CHECK, about, told)
    way_out = "`builders`: an image for each target class that Functions are of (builders.images)"
    return note(CHECK, about, f"{told} alone: `builds: native` builds nothing that needs a compiler", way_out)


async def _rights(server: ApiServer, pods: BuilderPods) -> Finding:
    """A review of one's own access is everybody's right."""
    lacking = []
    for group, resource, verb in RIGHTS:
        wanted = {"namespace": pods.namespace, "group": group, "resource": resource, "verb": verb}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": wanted},
        }
        answer = await server.call("POST", _REVIEWS, body=review)
        if (answer.get("status") or {}).get("allowed") is not True:
            lacking.append(f"{verb} {resource}")
    if lacking:
        told = f"the service may not {', '.join(lacking)} in the namespace {pods.namespace}"
        return wrong(CHECK, "rights", told, "the chart's Role and RoleBinding (builders.enabled, builders.namespace)")
    return well(CHECK, "rights", f"all that it takes, in the namespace {pods.namespace}")


async def _admitted(server: ApiServer, pods: BuilderPods) -> Finding:
    """A dry run: nothing is made."""
    place = min(pods.images)
    name = f"lockstep-doctor-{secrets.token_hex(8)}"
    asked = job(pods, place, name, 60, user=_NOBODY, replica="doctor")
    try:
        await server.call("POST", jobs_path(pods.namespace), body=asked, params={"dryRun": "All"})
    except ApiFault as fault:
        if fault.status is None:
            raise
        way_out = f"what the namespace {pods.namespace} admits: is it there, has it a quota, who else has a say in it?"
        return wrong(CHECK, "jobs", f"the cluster refuses them: {fault}", way_out)
    return well(CHECK, "jobs", f"are taken in the namespace {pods.namespace} (a dry run)")
