"""`lockstep gc` and `lockstep fsck` beside the real service, and blobs that rot under it."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from storage.content import Digest
from tests.integration.conftest import publish
from tests.support.index import PackageIndex
from tests.support.service import ROOT, Service

NOTHING_IN_USE = ("--keep-for", "0", "--gc-grace", "0")


def lockstep(service: Service, command: str, *flags: str) -> "subprocess.CompletedProcess[str]":
    """The command on the stores of the service, which may be down."""
    argv = [sys.executable, "-m", "resolver", command, "--data-dir", str(service.data), "--log-level", "warning"]
    return subprocess.run([*argv, *flags], cwd=ROOT, capture_output=True, text=True, timeout=120)


def gc(service: Service, *flags: str) -> dict[str, Any]:
    ran = lockstep(service, "gc", "--json", *flags)
    assert ran.returncode == 0, ran.stderr
    said: dict[str, Any] = json.loads(ran.stdout)
    return said


def collect(service: Service, *flags: str) -> dict[str, Any]:
    """Marks, then removes, as there is no grace; what the removal said."""
    gc(service, *NOTHING_IN_USE, *flags)
    return gc(service, *NOTHING_IN_USE, *flags)


def ask(service: Service, name: str, revision: str | None) -> dict[str, Any]:
    workload = {"namespace": "shop", "name": name, "revision": revision}
    answered = service.resolve(name, **({"workload": workload} if revision else {}))
    while answered.status_code == 503:
        time.sleep(0.2)
        answered = service.resolve(name, **({"workload": workload} if revision else {}))
    assert answered.status_code == 200, answered.text
    answer: dict[str, Any] = answered.json()
    return answer


def parts(service: Service, bundle: str) -> dict[str, bytes]:
    """The bundle's contents as a client gets them, each checked."""
    with service.client() as client:
        answered = client.get(f"/v1/bundles/{bundle}")
        assert answered.status_code == 200, answered.text
        manifest = answered.json()
        found = {bundle: answered.content}
        for part in (manifest["config"], *manifest["layers"]):
            answered = client.get(f"/v1/blobs/{part['digest']}")
            assert answered.status_code == 200, answered.text
            found[part["digest"]] = answered.content
    assert all(Digest.of(content) == digest for digest, content in found.items())
    return found


def layer(service: Service, bundle: str) -> Digest:
    with service.client() as client:
        return Digest(client.get(f"/v1/bundles/{bundle}").json()["layers"][0]["digest"])


def file(service: Service, digest: Digest) -> Path:
    return service.data / "blobs" / "blobs-v1" / "sha256" / digest.hex[:2] / digest.hex


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.chmod(0o644)
    path.write_bytes(content)


def stored(service: Service) -> int:
    return sum(1 for path in (service.data / "blobs" / "blobs-v1" / "sha256").rglob("*") if path.is_file())


def test_a_pinned_bundle_stays_and_one_out_of_use_goes(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    publish(index, f"{name}-loose", "1.0")
    pinned, loose = ask(service, name, "r1"), ask(service, f"{name}-loose", None)

    said = gc(service, *NOTHING_IN_USE, "--dry-run")
    assert (said["dry_run"], said["removed"]) == (True, 0)
    before = stored(service)
    removed = collect(service)

    assert removed["removed"] >= 3
    assert stored(service) == before - removed["removed"]
    parts(service, pinned["bundle"]["digest"])
    with service.client() as client:
        assert client.get(f"/v1/bundles/{loose['bundle']['digest']}").status_code == 404
    assert ask(service, f"{name}-loose", None)["bundle"] == loose["bundle"]
    parts(service, loose["bundle"]["digest"])


def test_evicted_bytes_come_back_the_same_when_a_pin_needs_them(
    service: Service, index: PackageIndex, name: str
) -> None:
    publish(index, name, "1.0")
    first = ask(service, name, "r1")
    contents = parts(service, first["bundle"]["digest"])
    publish(index, name, "2.0")
    fetched = index.count(f"{name.replace('-', '_')}-1.0")

    collect(service, "--keep-revisions", "0")
    assert stored(service) == 0

    again = ask(service, name, "r1")
    assert (again["outcome"], again["lock"], again["bundle"]) == ("pinned", first["lock"], first["bundle"])
    assert parts(service, again["bundle"]["digest"]) == contents
    assert index.count(f"{name.replace('-', '_')}-1.0") > fetched


def test_it_works_while_the_service_is_down(index: PackageIndex, name: str, tmp_path: Path) -> None:
    publish(index, name, "1.0")
    with Service(tmp_path / "data", index_url=index.url) as service:
        ask(service, name, "r1")
    assert stored(service) > 0
    assert lockstep(service, "fsck").returncode == 0
    assert gc(service)["removed"] == 0
    assert collect(service)["kept"] == stored(service)
    assert collect(service, "--keep-revisions", "0")["kept"] == 0
    service.start()
    try:
        parts(service, ask(service, name, "r1")["bundle"]["digest"])
    finally:
        service.stop()


def test_collections_beside_requests_break_no_answer(index: PackageIndex, name: str, tmp_path: Path) -> None:
    names = [f"{name}-{number}" for number in range(6)]
    publish(index, f"{name}-shared", "1.0")
    for each in names:
        publish(index, each, "1.0", requires=[f"{name}-shared"])
    with Service(tmp_path / "data", index_url=index.url) as service, ThreadPoolExecutor(8) as pool:
        ending = time.monotonic() + 300
        answers = [pool.submit(ask, service, each, "r1") for each in names]
        collecting = [pool.submit(collect, service) for _ in range(2)]
        while not all(answer.done() for answer in answers):
            assert time.monotonic() < ending
            collect(service)
        for done in collecting:
            done.result()
        bundles = [answer.result()["bundle"]["digest"] for answer in answers]
        collect(service)
        for bundle in bundles:
            parts(service, bundle)
        ran = lockstep(service, "fsck")
        assert ran.returncode == 0, ran.stdout


def test_fsck_finds_a_flipped_bit_and_mends_it(service: Service, index: PackageIndex, name: str) -> None:
    publish(index, name, "1.0")
    first = ask(service, name, "r1")
    digest = layer(service, first["bundle"]["digest"])
    flip(file(service, digest))

    found = lockstep(service, "fsck")
    assert (found.returncode, f"damaged {digest}" in found.stdout) == (1, True)
    mended = lockstep(service, "fsck", "--repair")
    assert (mended.returncode, f"damaged {digest} (mended)" in mended.stdout) == (0, True)
    assert (service.data / "blobs" / "quarantine-v1" / digest.hex).is_file()

    assert ask(service, name, "r1")["bundle"] == first["bundle"]
    parts(service, first["bundle"]["digest"])
    assert lockstep(service, "fsck").returncode == 0


def test_a_damaged_read_heals_and_the_client_gets_the_right_bytes(
    service: Service, index: PackageIndex, name: str, tmp_path: Path
) -> None:
    publish(index, name, "1.0")
    first = ask(service, name, "r1")
    digest = layer(service, first["bundle"]["digest"])
    flip(file(service, digest))

    argv = [sys.executable, "-m", "resolver", "fetch", "--server", service.url, "--target", str(tmp_path / "target")]
    argv += ["--requirement", name, "--namespace", "shop", "--workload", name, "--revision", "r1", "--timeout", "60"]
    argv += ["--python", "3.12", "--platform", "manylinux_2_28_x86_64"]
    runs: list[subprocess.CompletedProcess[str]] = []
    while not runs or (runs[-1].returncode != 0 and len(runs) < 4):  # as an init container is restarted
        runs.append(subprocess.run(argv, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120))
    assert runs[-1].returncode == 0, [run.stderr for run in runs]

    assert (tmp_path / "target" / "site-packages" / name.replace("-", "_") / "__init__.py").is_file()
    assert {"event": "blob.mended", "digest": digest, "verdict": "damaged"}.items() <= next(
        event for event in service.events() if event.get("event") == "blob.mended" and event["digest"] == digest
    ).items()
    parts(service, first["bundle"]["digest"])


def test_the_service_collects_by_itself_and_counts_it(index: PackageIndex, name: str, tmp_path: Path) -> None:
    publish(index, name, "1.0")
    environment = {"LOCKSTEP_KEEP_FOR": "0", "LOCKSTEP_GC_GRACE": "1s", "LOCKSTEP_GC_EVERY": "0.5s"}
    with Service(tmp_path / "data", index_url=index.url, environment=environment) as service:
        size = ask(service, name, None)["bundle"]["size"]
        ending = time.monotonic() + 60
        while stored(service) and time.monotonic() < ending:
            time.sleep(0.2)
        assert stored(service) == 0
        with service.client() as client:
            [line] = [
                line
                for line in client.get("/metrics").text.splitlines()
                if line.startswith("lockstep_gc_deleted_bytes_total ")
            ]
        assert float(line.rpartition(" ")[2]) > size
