"""How cost grows with the number of packages: sets of 1 to 300 small ones, cold, pinned, and in a Pod.

python -m tests.benchmarks.packages [--runs 3]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from resolver.client.build import archive
from resolver.client.environment import target
from tests.benchmarks.pod import cost
from tests.benchmarks.report import console, show
from tests.benchmarks.rows import Row, rows
from tests.benchmarks.ways import service
from tests.support.index import PackageIndex
from tests.support.wheels import make_wheel

COUNTS = (1, 10, 100, 300)
_ASKED = 50


def measure(work: Path, runs: int = 3, counts: Sequence[int] = COUNTS) -> list[Row]:
    """For each count: the first answer, in which all is built; a pinned answer; the client, from nothing to ready."""
    found: list[Row] = []
    with PackageIndex() as index, tempfile.TemporaryDirectory(dir=work, prefix="packages-") as name:
        folder = Path(name)
        (folder / "lockstep.pyz").write_bytes(archive())
        for number in range(max(counts)):
            index.add(*make_wheel(f"package{number}", "1.0"))
        for count in counts:
            cold, pinned, client = [], [], []
            for turn in range(runs):
                data = folder / f"{count}-{turn}"
                with service(index.url, data) as started, started.client(600) as http:
                    http.get("/healthz")
                    text = "\n".join(f"package{number}" for number in range(count))
                    workload = {"namespace": "growth", "name": "packages", "revision": "1"}
                    body = {"requirements": text, "target": target(), "workload": workload, "wait": 300}
                    began = time.perf_counter()
                    http.post("/v1/resolve", json=body).raise_for_status()
                    cold.append(time.perf_counter() - began)
                    for _ in range(_ASKED):
                        began = time.perf_counter()
                        answer = http.post("/v1/resolve", json=body).raise_for_status()
                        pinned.append((time.perf_counter() - began) * 1000)
                    if answer.json()["outcome"] != "pinned":
                        raise RuntimeError(answer.text)
                    argv = [sys.executable, "-I", "-S", str(folder / "lockstep.pyz"), "fetch", "--server", started.url]
                    argv += ["--target", str(data / "pod"), "--namespace", "growth", "--workload", "packages"]
                    argv += ["--revision", "1", *(f"--requirement=package{number}" for number in range(count))]
                    client.append(cost(argv, {"HOME": str(folder), "TMPDIR": str(folder)}).cpu)
            case = f"packages: {count}"
            found += rows("growth", case, "cold s", {"lockstep": cold})
            found += rows("growth", case, "pinned answer ms", {"lockstep": pinned})
            found += rows("growth", case, "client CPU s", {"lockstep": client})
    return found


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.packages")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    show(measure(options.work, options.runs), console)


if __name__ == "__main__":
    main()
