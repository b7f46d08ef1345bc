"""Callers of every kind, at once, until the service dies under them; and what they were told before it did."""

import base64
import csv
import hashlib
import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from resolver.client.build import archive
from storage.content import Digest
from tests.faults.packages import NAMES
from tests.support.service import Service

_THIS = f"{sys.version_info.major}.{sys.version_info.minor}"
TARGETS = (
    {"python": _THIS, "platform": "manylinux_2_28_x86_64"},
    {"python": _THIS, "platform": "musllinux_1_2_x86_64"},
    {"python": "3.13" if _THIS != "3.13" else "3.12", "platform": "manylinux_2_17_aarch64"},  # without byte-code
)
_NAMESPACE = "load"
_WORKLOADS = 4
_CALLERS = 5


@dataclass(slots=True)
class Told:
    """What callers were told: the lock and bundle for each request that a pin answers for ever, and all bundles."""

    pinned: dict[str, tuple[str, str]] = field(default_factory=dict)
    bundles: set[str] = field(default_factory=set)
    answers: int = 0
    wrong: list[str] = field(default_factory=list)

    def tell(self, body: dict[str, Any], answer: dict[str, Any]) -> None:
        """Note an answer, and whether it contradicts an earlier one."""
        self.answers += 1
        lock, bundle = answer["lock"]["digest"], answer["bundle"]["digest"]
        self.bundles.add(bundle)
        if "revision" in body.get("workload", {}):
            before = self.pinned.setdefault(json.dumps(body, sort_keys=True), (lock, bundle))
            if before != (lock, bundle):
                self.wrong.append(f"{body} was answered with {before}, then with {(lock, bundle)}")


def ask(client: httpx.Client, body: dict[str, Any], told: Told, wait: float = 50) -> None:
    """One resolve request, followed to its end. Raises what the connection does."""
    answer = client.post("/v1/resolve", json={**body, "wait": wait})
    while answer.status_code == 202:
        time.sleep(0.05)
        answer = client.get(answer.headers["Location"])
    if answer.status_code != 200:
        told.wrong.append(f"{body} was answered with {answer.status_code}: {answer.text}")
    else:
        told.tell(body, answer.json())


def download(client: httpx.Client, bundle: str, told: Told) -> int:
    """A bundle and all its blobs, verified; returns how many. Raises what the connection does."""
    manifest = _verified(client, f"/v1/bundles/{bundle}", bundle, told)
    if manifest is None:
        return 0
    parts = json.loads(manifest)
    config = _verified(client, f"/v1/blobs/{parts['config']['digest']}", parts["config"]["digest"], told)
    digests = [layer["digest"] for layer in parts["layers"]]
    if config is not None:
        digests += json.loads(config)["rootfs"]["diff_ids"][:1]
    for digest in digests:
        _verified(client, f"/v1/blobs/{digest}", digest, told)
    return len(digests) + 2


def _verified(client: httpx.Client, path: str, digest: str, told: Told) -> bytes | None:
    answer = client.get(path)
    if answer.status_code != 200 or Digest.of(answer.content) != digest:
        told.wrong.append(f"{path} was answered with {answer.status_code} and {len(answer.content)} other bytes")
        return None
    return answer.content


class Fetcher:
    """An init container's client, always with the same target folder."""

    def __init__(self, folder: Path) -> None:
        self.target = folder / "target"
        self._program = folder / "lockstep.pyz"
        self._program.write_bytes(archive())

    def start(self, service: Service, requirements: list[str]) -> "subprocess.Popen[str]":
        argv = [sys.executable, "-I", "-S", str(self._program), "fetch", "--server", service.url, "--timeout", "60"]
        argv += ["--target", str(self.target), "--namespace", _NAMESPACE, "--workload", "fetched"]
        argv += [part for requirement in requirements for part in ("--requirement", requirement)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def check(self, service: Service, requirements: list[str]) -> int:
        """Fetch to the end; returns how many files RECORD vouches for. Raises AssertionError."""
        process = self.start(service, requirements)
        said, _ = process.communicate(timeout=90)
        assert process.returncode == 0, said
        site = self.target / "site-packages"
        assert {path.name.partition("-")[0] for path in site.glob("*.dist-info")} >= set(requirements)
        checked = 0
        for record in site.glob("*.dist-info/RECORD"):
            for path, expected, _ in csv.reader(record.read_text().splitlines()):
                if expected:
                    found = hashlib.sha256((site / path).read_bytes()).digest()
                    assert expected == "sha256=" + base64.urlsafe_b64encode(found).decode().rstrip("="), path
                    checked += 1
        return checked


class Load:
    """Callers that go on until they are stopped. What each of them asks for follows from `seed` alone."""

    def __init__(self, service: Service, told: Told, fetcher: Fetcher, seed: str, growth: int) -> None:
        self._service = service
        self._told = told
        self._fetcher = fetcher
        self._names = NAMES[: 4 + growth]
        self._revision = growth
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(f"{seed} {n}",)) for n in range(_CALLERS)]
        self._threads.append(threading.Thread(target=self._fetch, args=(f"{seed} fetch",)))
        for thread in self._threads:
            thread.start()

    def expect_the_end(self) -> None:
        """From now on, a connection that breaks is no surprise."""
        self._over.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _call(self, seed: str) -> None:
        chance = random.Random(seed)
        with self._service.client(timeout=60) as client:
            while not self._over.is_set():
                try:
                    self._one(client, chance)
                except httpx.TransportError as error:
                    if not self._over.is_set():
                        self._told.wrong.append(f"a connection broke: {error!r}")
                    return

    def _one(self, client: httpx.Client, chance: random.Random) -> None:
        match chance.choices(("resolve", "download", "refresh"), (12, 5, 1))[0]:
            case "resolve":
                ask(client, self._request(chance), self._told, wait=chance.choice((0, 50)))
            case "download" if bundles := sorted(self._told.bundles):
                download(client, chance.choice(bundles), self._told)
            case "refresh":
                client.delete(f"/v1/pins/{_NAMESPACE}/work{chance.randrange(_WORKLOADS)}")

    def _request(self, chance: random.Random) -> dict[str, Any]:
        target = chance.choice(TARGETS)
        if chance.random() < 0.3:
            return {"requirements": self._some(chance), "target": target}
        workload = {"namespace": _NAMESPACE, "name": f"work{chance.randrange(_WORKLOADS)}"}
        # Replicas ask for one thing, at once and on machines of every kind; it grows from revision to revision.
        requirements = self._some(random.Random(f"{workload['name']} {self._revision}"))
        if chance.random() < 0.8:
            workload["revision"] = f"rev{self._revision}"
        return {"requirements": requirements, "target": target, "workload": workload}

    def _some(self, chance: random.Random) -> list[str]:
        return sorted(chance.sample(self._names, chance.randint(1, min(6, len(self._names)))))

    def _fetch(self, seed: str) -> None:
        chance = random.Random(seed)
        while not self._over.is_set():
            process = self._fetcher.start(self._service, chance.sample(self._names, 2))
            while process.poll() is None and not self._over.wait(0.02):
                pass
            process.kill()
            process.communicate()
