"""One layer on its way: received, taken up again where it broke off, hashed, decompressed, unpacked, piece by piece.

Each step is a generator on the one before, and a piece is good until the next is asked for; so a layer of any size
needs no more memory than one buffer, and its bytes go from there to their files.
"""

from __future__ import annotations

import hashlib
from contextlib import closing

from resolver.client.bundle import check, zstd
from resolver.client.errors import Mismatch, Unavailable
from resolver.client.retries import Backoff, Passing
from resolver.client.unpack import InvalidLayer, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from resolver.client.bundle import Layer
    from resolver.client.console import Console, Progress
    from resolver.client.retries import Patience
    from resolver.client.transport import Body, Session

# What is received is hashed and written while it is in the CPU's cache: larger buffers cost more, smaller ones too.
_BUFFER = 1024 * 1024
_PLAIN = 256 * 1024
_WINDOW_LOG = 23  # RFC 8878, 3.1.1.1.2: 8 MiB is what every decoder should support; ours asks for no more


class Arrival:
    """Brings layers, one after the other, through one session."""

    def __init__(self, session: Session, patience: Patience, progress: Progress, console: Console) -> None:
        self._session = session
        self._patience = patience
        self._progress = progress
        self._console = console
        self._buffer = memoryview(bytearray(_BUFFER))

    def unpack(self, layer: Layer, folder: str) -> None:
        """Unpack it into this empty folder, once. What is in there after a failure is of no use.

        Raises:
            Passing: it could not be had this time, or what came is not what its digest names.
            Mismatch: it is what its digest names, and no layer.
            OSError: it cannot be written.
        """
        counted = hashlib.sha256()
        came = 0

        def hashed() -> Iterator[memoryview]:
            nonlocal came
            for piece in received:
                counted.update(piece)
                came += len(piece)
                self._progress.add(len(piece))
                yield piece

        malformed = None
        try:
            with closing(self._received(layer)) as received:
                pieces = hashed()
                try:
                    unpack(_decompressed(pieces) if layer.compressed else pieces, folder)
                except InvalidLayer as error:
                    malformed = error
                for _ in pieces:  # the digest is that of all bytes, also of those behind the archive's end
                    pass
            check(counted.hexdigest(), layer.digest)
        except Passing:
            self._progress.add(-came)
            raise
        if malformed is not None:
            raise Mismatch(f"{layer.digest} is no layer: {malformed}") from malformed

    def _received(self, layer: Layer) -> Generator[memoryview, None, None]:
        count = 0
        backoff = Backoff(self._patience, self._console.say)
        while True:
            try:
                with self._session.exchange("GET", f"/v1/blobs/{layer.digest}", start=count) as body:
                    known = count - _first(body, count)
                    while size := body.read_into(self._buffer):
                        new = self._buffer[known:size]
                        known = max(0, known - size)
                        count += len(new)
                        if new:
                            yield new
                return
            except Passing as failure:
                if not count:
                    raise
                backoff.pause(failure)


def _first(body: Body, wanted: int) -> int:
    """The number of the first byte that comes (RFC 9110, 14.4 and 15.3.7)."""
    if body.status != 206:
        return 0
    if not body.headers.get("content-range", "").startswith(f"bytes {wanted}-"):
        raise Passing(Unavailable(f"{body.asked}: another range came than the one that was asked for"))
    return wanted


def _decompressed(pieces: Iterator[memoryview]) -> Iterator[bytes]:
    """What zstd frames hold; concatenated ones are one stream (RFC 8878, 3). Raises InvalidLayer."""
    module = zstd()
    options = {module.DecompressionParameter.window_log_max: _WINDOW_LOG}
    decompressor = None
    try:
        for piece in pieces:
            left: memoryview | bytes = piece
            while left or (decompressor is not None and not decompressor.needs_input):
                decompressor = decompressor or module.ZstdDecompressor(options=options)
                yield decompressor.decompress(left, _PLAIN)
                left = b""
                if decompressor.eof:
                    left, decompressor = decompressor.unused_data, None
    except module.ZstdError as error:
        raise InvalidLayer(str(error)) from error
    if decompressor is not None:
        raise InvalidLayer("what is compressed ends too early")
