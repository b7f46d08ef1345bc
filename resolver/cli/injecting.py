"""`inject`: what the webhook does at admission, done to a file."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import yaml

from resolver.cli.command import Command
from resolver.cli.output import say
from resolver.client.build import bootstrap
from resolver.client.errors import BadUsage, Refused, Unavailable
from resolver.domain.injection import Delivery, Injected, Owner, inject
from resolver.domain.pods import Document
from resolver.domain.redaction import redact

_SERVER = "LOCKSTEP_SERVER"
_STDIN = Path("-")
_CLIENT = "/client/lockstep.pyz"
_SECONDS = 30.0
# Where nobody is asked who they are it does no harm.
_AUDIENCE = "lockstep"
# Where the template of a kind's Pods is, and the label that says their revision.
_TEMPLATES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "Deployment": (("spec", "template"), "pod-template-hash"),
    "ReplicaSet": (("spec", "template"), "pod-template-hash"),
    "StatefulSet": (("spec", "template"), "controller-revision-hash"),
    "DaemonSet": (("spec", "template"), "controller-revision-hash"),
    "Job": (("spec", "template"), None),
    "CronJob": (("spec", "jobTemplate", "spec", "template"), None),
}
_SILENT = ("not-asked", "already", "off")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Let the Pods of a manifest start from their bundles, as the admission webhook would, and print it whole. "
        "Pods, and the templates of Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs and CronJobs, take part "
        "by the annotations lockstep.dev/requirements or lockstep.dev/requirements-configmap, or as Functions of Kyma. "
        "They will run the client that the service serves now, and refuse another: a Pod then installs as it would "
        "without Lockstep."
    )
    add = parser.add_argument
    add("-f", "--file", metavar="FILE", type=Path, required=True, help="a manifest (YAML; -: from stdin)")
    add("--server", metavar="URL", help=f"where Pods reach the service ({_SERVER})")
    add("--client", metavar="FILE", type=Path, help="lockstep.pyz as the service serves it (default: it is asked)")
    add("--namespace", metavar="N", help="the namespace of what names none")
    add("--client-image", metavar="IMAGE", help="the client's image, for Pods whose own has no Python")
    add("--cpu", metavar="N", default="1", help="CPU limit of the init container (default: 1; 0: the function's)")
    add("--audience", metavar="A", default=_AUDIENCE, help="of the token that Pods show (default: lockstep; '': none)")


def _inject(options: argparse.Namespace) -> int:
    server = options.server or os.environ.get(_SERVER)
    if not server:
        raise BadUsage(f"--server (or {_SERVER}) is missing: where Pods reach the service")
    server = server.rstrip("/")
    try:
        delivery = Delivery(
            server=server,
            client="",
            bootstrap=bootstrap(),
            client_image=options.client_image,
            cpu=options.cpu,
            audience=options.audience or None,
        )
    except ValueError as error:
        raise BadUsage(f"--{error}") from None
    documents = _read(options.file)
    delivery = replace(delivery, client=hashlib.sha256(_client(options.client, server)).hexdigest())
    refused: list[str] = []
    try:
        changed = [_changed(document, delivery, options.namespace, refused) for document in documents]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadUsage(f"{options.file} is no manifest that Kubernetes would take: {error!r}") from None
    if refused:
        raise Refused(refused[0], tuple(refused[1:]))
    yaml.safe_dump_all(changed, sys.stdout, sort_keys=False, width=120, allow_unicode=True)
    return 0


def _client(path: Path | None, server: str) -> bytes:
    """The client's zipapp. What it holds depends on the service: on its version, and on the Pythons that it has."""
    if path is not None:
        try:
            return path.read_bytes()
        except OSError as error:
            raise BadUsage(f"cannot read {path}: {error.strerror}") from error
    try:
        return httpx.get(f"{server}{_CLIENT}", timeout=_SECONDS).raise_for_status().content
    except httpx.HTTPError as error:
        hint = f"where the service cannot be reached from here, bring its {_CLIENT} and name it: --client FILE"
        raise Unavailable(f"{redact(server)} does not give its client: {redact(str(error))}", (hint,)) from error


def _read(path: Path) -> list[Any]:
    try:
        text = sys.stdin.read() if path == _STDIN else path.read_text(encoding="utf-8-sig")
        return [document for document in yaml.safe_load_all(text) if document is not None]
    except OSError as error:
        raise BadUsage(f"cannot read {path}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadUsage(f"{path} is not YAML{place}: {redact(error.problem or '')}") from None
    except (yaml.YAMLError, RecursionError, ValueError):
        raise BadUsage(f"{path} is not YAML") from None


def _changed(document: Document, delivery: Delivery, namespace: str | None, refused: list[str]) -> Document:
    kind, metadata = document.get("kind"), document.get("metadata") or {}
    if kind == "List":
        return {**document, "items": [_changed(each, delivery, namespace, refused) for each in document["items"]]}
    where = metadata.get("namespace") or namespace
    if kind == "Pod":
        # Without a namespace the Pod learns its own when it is made.
        owner = None if where else Owner(metadata["name"], None, None)
        return _injected(document, inject(document, delivery, namespace=where, owner=owner), kind, refused)
    if kind not in _TEMPLATES:
        return document
    path, label = _TEMPLATES[kind]
    template: Document = document
    for name in path:
        template = template[name]
    owner = Owner(metadata["name"], label, where)
    return _replaced(document, path, _injected(template, inject(template, delivery, owner=owner), kind, refused))


def _injected(before: Document, found: Any, kind: str, refused: list[str]) -> Document:
    name = (before.get("metadata") or {}).get("name", "")
    if isinstance(found, Injected):
        return found.pod
    if found.code in _SILENT:
        say(f"{kind} {name}".rstrip() + f": left as it is ({found.code})")
    else:
        refused.append(f"{kind} {name}".rstrip() + f": {found.message or found.code}")
    return before


def _replaced(document: Document, path: tuple[str, ...], value: Document) -> Document:
    if not path:
        return value
    return {**document, path[0]: _replaced(document[path[0]], path[1:], value)}


INJECT = Command(_arguments, _inject)
