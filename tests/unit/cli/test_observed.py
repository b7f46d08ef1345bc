"""`lockstep observed`: a log in, what a team wants to know of its workloads out."""

import json
from pathlib import Path
from typing import Any

from tests.unit.cli.conftest import Run

LOCK, NEWER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


def event(workload: str, lock: str | None = LOCK, namespace: str = "shop", **more: Any) -> str:
    told: dict[str, Any] = {"event": "observed", "namespace": namespace, "workload": workload, **more}
    if lock:
        told |= {"lock": lock, "packages": 5, "estimate": {"cpu_seconds_saved": 2.5, "seconds_saved": 9.0}}
    return json.dumps(told)


def log(folder: Path, *lines: str) -> str:
    (folder / "log").write_text("\n".join(lines))
    return str(folder / "log")


def test_pods_are_told_by_workload(run: Run, tmp_path: Path) -> None:
    lines = [
        "uvicorn says something",
        json.dumps({"event": "admission", "namespace": "shop", "workload": "orders"}),
        "[1, 2]",
        event("orders"),
        event("orders", NEWER, drift=["requests 2.31.0 → 2.32.0"]),
        event("orders", NEWER, drift=["requests 2.31.0 → 2.32.0"]),
        event("carts", None, cause="nothing satisfies b"),
        event("orders", namespace="other"),
    ]
    ran = run("observed", "--namespace", "shop", "--json", log(tmp_path, *lines))
    assert (ran.code, ran.err) == (0, "")
    carts, orders = json.loads(ran.out)["workloads"]
    assert orders == {
        "namespace": "shop",
        "workload": "orders",
        "pods": 3,
        "packages": 5,
        "locks": [LOCK, NEWER],
        "drift": ["requests 2.31.0 → 2.32.0"],
        "causes": [],
        "cpu_seconds_saved_estimate": 7.5,
    }
    assert (carts["pods"], carts["locks"], carts["causes"]) == (1, [], ["nothing satisfies b"])


def test_people_get_a_table_that_says_what_is_estimated(run: Run, tmp_path: Path) -> None:
    ran = run("observed", log(tmp_path, event("orders"), event("carts", None, cause="nothing\x1b[31m satisfies b")))
    assert ran.code == 0
    assert "shop/orders" in ran.out
    assert "nothing [31m satisfies b" in ran.out
    assert "estimates" in ran.out


def test_a_log_that_is_not_there(run: Run) -> None:
    assert run("observed", "/nonexistent/log").code == 64
