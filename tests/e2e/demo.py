"""`make demo`: two replicas of one workload, from the real index, on the embedded default. Prints what happened."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from resolver.client.build import main as build_client
from tests.support.service import Service

REQUIREMENTS = "fastapi[standard]\nsqlalchemy>=2\nhttpx\nredis\n"
IMPORTS = ("fastapi", "sqlalchemy", "httpx", "redis", "uvicorn", "pydantic")

console = Console(highlight=False, soft_wrap=True)


@contextmanager
def step(name: str, times: list[tuple[str, float]]) -> Iterator[None]:
    """Time a step, and say it."""
    started = time.perf_counter()
    yield
    times.append((name, time.perf_counter() - started))
    console.print(f"[green]✓[/] {name} [dim]({times[-1][1]:.2f} s)[/]")


def fetch(client: Path, service: Service, target: Path, replica: int) -> str:
    """Run the client as an init container would; returns what it said."""
    argv = [sys.executable, "-I", "-S", str(client), "fetch", "--server", service.url, "--target", str(target)]
    argv += ["--namespace", "shop", "--workload", "checkout", "--revision", "6d4cf56db6"]
    done = subprocess.run(
        argv,
        env={**os.environ, "LOCKSTEP_REQUIREMENTS": REQUIREMENTS},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    for line in done.stderr.splitlines():
        console.print(f"    replica {replica} │ {line}", markup=False, style="dim")
    if done.returncode != 0:
        sys.exit(f"replica {replica}: fetch ended with {done.returncode}")
    return done.stderr


def imported(target: Path) -> dict[str, str]:
    """The packages as a replica's interpreter imports them: each with its version, each from the target."""
    program = (
        "import importlib, importlib.metadata as m, json, sys\n"
        "from pathlib import Path\n"
        "root = Path(sys.argv[1]).resolve()\n"
        "versions = {}\n"
        "for name in sys.argv[2:]:\n"
        "    file = Path(importlib.import_module(name).__file__).resolve()\n"
        "    assert file.is_relative_to(root), f'{name} came from {file}'\n"
        "    versions[name] = m.version(name)\n"
        "print(json.dumps(versions))\n"
    )
    argv = [getattr(sys, "_base_executable", sys.executable), "-s", "-c", program, str(target), *IMPORTS]
    environment = {**os.environ, "PYTHONPATH": str(target / "site-packages")}
    done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def main() -> None:
    """The whole story."""
    times: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="lockstep-demo-") as name:
        folder = Path(name)
        with step("client built: lockstep.pyz", times):
            build_client([str(folder / "lockstep.pyz")])
        service = Service(folder / "data")
        with step("service started, on its embedded default", times):
            service.start()
        try:
            for replica in (1, 2):
                what = "locks, builds and fetches the bundle" if replica == 1 else "fetches the same bundle"
                with step(f"replica {replica} {what}", times):
                    fetch(folder / "lockstep.pyz", service, folder / f"replica-{replica}", replica)
            with service.client() as http:
                (pin,) = http.get("/v1/pins", params={"namespace": "shop"}).json()["items"]
                lock = http.get(f"/v1/locks/{pin['lock']}").json()
            versions = []
            for replica in (1, 2):
                with step(f"replica {replica} imports {', '.join(IMPORTS)}", times):
                    versions.append(imported(folder / f"replica-{replica}"))
            bundles = [os.readlink(folder / f"replica-{replica}" / ".lockstep" / "current") for replica in (1, 2)]
        finally:
            service.stop()
        report(lock, versions, bundles, times)
        if versions[0] != versions[1] or bundles[0] != bundles[1]:
            sys.exit("the replicas differ")


def report(
    lock: dict[str, object], versions: list[dict[str, str]], bundles: list[str], times: list[tuple[str, float]]
) -> None:
    """What the two replicas have."""
    table = Table("package", "replica 1", "replica 2", title=f"{lock['package_count']} packages locked; some of them")
    for package in IMPORTS:
        table.add_row(package, versions[0][package], versions[1][package])
    console.print()
    console.print(table)
    console.print(f"lock    {lock['digest']}")
    for replica, bundle in enumerate(bundles, 1):
        console.print(f"bundle  {bundle}  (replica {replica})")
    equal = versions[0] == versions[1] and bundles[0] == bundles[1]
    console.print(f"[bold]both replicas are equal: {equal}[/]")
    console.print(f"first replica ready in {times[2][1]:.2f} s, second in {times[3][1]:.2f} s")


if __name__ == "__main__":
    main()
