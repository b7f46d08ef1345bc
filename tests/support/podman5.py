"""A podman that mounts images in Pods: that of Debian 13, in a folder of its own, with storage that goes with it."""

import functools
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.containers import BASE, CACHE, alone, base_image, podman

_PACKAGES = "podman,crun,runc,netavark,aardvark-dns,ca-certificates,iptables,nftables,iproute2,catatonit"
_CONFIGURATION = """\
[containers]
pids_limit = 0
default_ulimits = ["nofile=16384:16384", "nproc=32768:32768"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""
# In a mount namespace of its own: what is mounted and run here ends with the shell.
_ENTER = """
set -e
root=$1; share=$2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"; mount --rbind /sys "$root/sys"; mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root/share" "$root/var/lib/containers" "$share/storage"
mount --bind "$share" "$root/share"; mount --bind "$share/storage" "$root/var/lib/containers"
cp /etc/resolv.conf "$root/etc/resolv.conf"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PODMAN_IGNORE_CGROUPSV1_WARNING=1
unset CONTAINERS_CONF
cd "$root"; exec chroot "$root" bash
"""


@functools.cache
def _root() -> Path:
    """Where it is; made on first use, kept from run to run. Skips the test where it cannot be."""
    root = CACHE / "podman5"
    with alone():
        if not (root / "usr/bin/podman").exists():
            making = CACHE / "podman5.making"
            shutil.rmtree(making, ignore_errors=True)
            argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", "trixie", str(making)]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False)
            if done.returncode != 0:
                pytest.skip(f"no podman 5 here: mmdebstrap ended with {done.returncode}: {done.stderr.strip()[-300:]}")
            making.rename(root)
    configuration = root / "etc/containers/containers.conf"
    configuration.parent.mkdir(parents=True, exist_ok=True)
    configuration.write_text(_CONFIGURATION)
    return root


class Podman5:
    """`with Podman5(folder) as podman:`, the local base image in its storage; `folder` is seen as /share inside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        if shutil.which("unshare") is None or os.geteuid() != 0:
            pytest.skip("podman 5 is run as root in a chroot here")
        base_image()
        root = _root()
        podman("save", "--output", str(self.folder / "base.tar"), BASE)
        argv = ["unshare", "--mount", "--propagation", "private", "bash", "-c", _ENTER, "enter"]
        self._shell = subprocess.Popen(
            [*argv, str(root), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            self("load", "--quiet", "--input", "/share/base.tar")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self("rm", "--all", "--force", "--time=0", "--volumes")
            self("rmi", "--all", "--force")
        finally:
            self._end()

    def _end(self) -> None:
        self._shell.kill()
        self._shell.communicate()

    def __call__(self, *arguments: str) -> str:
        """What a podman command prints, all of it; it has to end well."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        command = shlex.join(["timeout", "120", "podman", *arguments])
        self._shell.stdin.write(f"{command} </dev/null 2>&1; echo; echo END-OF-COMMAND $?\n")
        self._shell.stdin.flush()
        lines: list[str] = []
        for line in self._shell.stdout:
            if line.startswith("END-OF-COMMAND "):
                assert line.split()[1] == "0", f"{command}: {''.join(lines)}"
                return "".join(lines)
            lines.append(line)
        raise AssertionError(f"{command}: {''.join(lines)}")
