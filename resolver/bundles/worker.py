"""A worker process: takes jobs from its standard input, one line of JSON each, and answers on its standard output.

The input is its lifeline too: it ends when the service does, however that ended, and with it the worker and all that
the worker started, which share its process group.

An answer is its length (8 bytes, big-endian) and that many bytes of JSON: `{"layer": …}` or `{"error": …}`.
"""

import dataclasses
import errno
import gc
import json
import os
import queue
import resource
import signal
import sys
import threading
import traceback
from typing import BinaryIO

from resolver.bundles.compilers import Compilers
from resolver.bundles.job import LENGTH, LayerJob
from resolver.bundles.layer import build_layer
from resolver.domain.errors import DamagedLayer, InvalidWheel

# Unpacking streams, and so takes little; a source file made to blow up its compiler ends here instead of the node.
_MEMORY_LIMIT = 4 << 30


def main() -> None:
    """Work until the lifeline breaks."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints does not garble an answer
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, jobs), daemon=True).start()
    compilers = Compilers()
    gc.freeze()
    gc.set_threshold(20_000)  # as the service itself: a wheel of ten thousand files is no garbage
    while True:
        answer = json.dumps(_answer(LayerJob(**json.loads(jobs.get())), compilers)).encode()
        answers.write(len(answer).to_bytes(LENGTH, "big") + answer)
        answers.flush()


def _listen(lifeline: BinaryIO, jobs: "queue.SimpleQueue[bytes]") -> None:
    for line in lifeline:
        jobs.put(line)
    os.killpg(0, signal.SIGKILL)


def _answer(job: LayerJob, compilers: Compilers) -> dict[str, object]:
    try:
        layer = build_layer(job, compilers)
    except InvalidWheel as error:
        return {"error": "invalid-wheel", "file": error.file, "reason": error.reason}
    except DamagedLayer as error:
        return {"error": "damaged-layer", "reason": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever it is, the service is told, and raises it there
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return {"error": "storage-full"}
        return {"error": "failed", "reason": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    return {"layer": dataclasses.asdict(layer) | {"path": os.fspath(layer.path)}}
