"""A bundle as an image volume has it: the layers of the image, each unpacked once, laid over each other by the kernel
and mounted read-only. A node's runtime does no more, and its part is done before the container starts."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.benchmarks.limits import Absent

_SECONDS = 300.0


@contextmanager
def mounted(service_url: str, bundle: str, folder: Path) -> Iterator[Path]:
    """Where the bundle of this digest is mounted, within the empty folder. Raises Absent where none can be mounted."""
    place, empty = folder / "deps", folder / "empty"
    place.mkdir()
    empty.mkdir()
    # The first of them lies on top. Named from within the folder: there is room for a page of their names. Two there
    # are at the least: the kernel makes no overlay of one.
    names = [*reversed(_unpacked(service_url, bundle, folder)), empty.name]
    mount = ["mount", "-t", "overlay", "overlay", "-o", f"ro,lowerdir={':'.join(names)}", str(place)]
    try:
        done = subprocess.run(mount, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Absent(f"no mount(8) here ({error.strerror})") from error
    if done.returncode:
        raise Absent(f"no overlay can be mounted here ({done.stderr.strip()})")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _unpacked(service_url: str, bundle: str, folder: Path) -> list[str]:
    """The folders with the image's layers, in their order."""
    with httpx.Client(base_url=service_url, timeout=_SECONDS) as client:
        manifest = client.get(f"/v1/bundles/{bundle}").raise_for_status().json()
        config = client.get(f"/v1/blobs/{manifest['config']['digest']}").raise_for_status().json()
        names = []
        for number, diff_id in enumerate(config["rootfs"]["diff_ids"]):
            layer = client.get(f"/v1/blobs/{diff_id}").raise_for_status().content
            with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
                tar.extractall(folder / str(number), filter="data")
            names.append(str(number))
    return names
