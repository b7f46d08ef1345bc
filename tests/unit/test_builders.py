"""Builders as they are set: what goes together, and what is none."""

import re
from pathlib import Path
from typing import Any

import pytest

from resolver.builders import builder_pods, job_launcher
from resolver.domain.builds import ANY
from resolver.settings import load

MUSL = "cp312-musllinux_1_2_x86_64"
SOUND: dict[str, Any] = {
    "builder_namespace": "lockstep-builders",
    "builder_url": "http://10.1.2.3:8080/",
    "builder_client_image": "registry.example.com/client:1",
    "builders": f"any=registry.example.com/lockstep:1, {MUSL}=registry.example.com/python312@sha256:{'0' * 64}",
}


def test_none_by_default() -> None:
    assert builder_pods(load({}, None)) is None
    assert job_launcher(load({}, None)) is None


def test_what_is_set_is_what_builders_get() -> None:
    pods = builder_pods(load({**SOUND, "builder_cpu": "750m", "sdist_memory": 3 << 30, "sdist_disk": 2 << 30}, None))
    assert pods is not None
    assert pods.images == {
        ANY: "registry.example.com/lockstep:1",
        MUSL: f"registry.example.com/python312@sha256:{'0' * 64}",
    }
    assert (pods.url, pods.cpu, pods.memory, pods.disk) == ("http://10.1.2.3:8080", "750m", 3 << 30, 2 << 30)


def test_in_a_file_they_are_a_mapping(tmp_path: Path) -> None:
    config = tmp_path / "lockstep.yaml"
    config.write_text(f"builders:\n  any: registry.example.com/a:1\n  {MUSL}: registry.example.com/b:1\n")
    assert load({}, config).builders == {ANY: "registry.example.com/a:1", MUSL: "registry.example.com/b:1"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"builder_namespace": None}, "builders, builder_url, builder_client_image: needs builder_namespace too"),
        ({"builders": "", "builder_url": None}, "builder_namespace: needs builders, builder_url too"),
        ({"builder_namespace": "../kube-system"}, "builder_namespace: not the name"),
        ({"builder_url": "10.1.2.3:8080"}, "builder_url: not the URL"),
        ({"builder_url": "http://me:secret@10.1.2.3:8080"}, "builder_url: not the URL"),
        ({"builders": "cp312=registry.example.com/a"}, "builders: 'cp312': not the name of a target class"),
        ({"builders": "any="}, "builders: what stands behind any= is no image"),
        ({"builders": "any=--privileged"}, "builders: what stands behind any= is no image"),
        ({"builders": "cp312-manylinux_2_35_x86_64=a"}, "is of the target class cp312-manylinux_2_34_x86_64"),
        ({"builder_client_image": "a b"}, "builder_client_image: not an image"),
        ({"builder_cpu": "much"}, "builder_cpu: not an amount"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        builder_pods(load({**SOUND, **changes}, None))
    assert "secret" not in str(caught.value)


def test_outside_of_a_cluster_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ValueError, match="this is in no cluster"):
        job_launcher(load(SOUND, None))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    assert job_launcher(load(SOUND, None)) is not None
