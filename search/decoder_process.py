"""The child that decodes one file after another for `search.guarded`: `python -m search.decoder_process MAX_PIXELS`.

Requests come on stdin: a 4-byte big-endian length, that many bytes of JSON, then `bytes` bytes of the file (unless
a `path` is given). Replies go to stdout in the same form: JSON with either `error` (the name of a class in
`search.errors`) and `message`, or `format`, `width`, `height`, `size` and `bytes`, followed by that many bytes of raw
RGB.
It imports neither Django nor any model, and ends when stdin does.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from typing import IO, Any

HEADER = struct.Struct(">I")
READY = b"ready\n"

_BASE_BYTES = 2 << 30
_BYTES_PER_PIXEL = 16
"""Pillow keeps 4 bytes a pixel; decoding and converting hold up to three copies, the file lies beside them."""
_GRACE_SECONDS = 5.0


def main() -> None:
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    # Whatever a codec prints must not land between the replies.
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence, descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; its end ends us
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _bound_memory(int(sys.argv[1]))

    from search import decoding

    replies.write(READY)
    replies.flush()
    while header := requests.read(HEADER.size):
        request = json.loads(_exactly(requests, HEADER.unpack(header)[0]))
        data = _exactly(requests, request["bytes"])
        # Ends this process even inside a codec that never returns, should the parent no longer be there to do it.
        signal.setitimer(signal.ITIMER_REAL, request["seconds"] + _GRACE_SECONDS)
        _end_with_parent(requests, True)
        reply, pixels = _answer(decoding, request, data)
        _end_with_parent(requests, False)
        signal.setitimer(signal.ITIMER_REAL, 0)
        del data
        text = json.dumps(reply).encode()
        replies.write(HEADER.pack(len(text)) + text)
        replies.write(pixels)
        replies.flush()


def _answer(decoding: Any, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    from search import errors

    limits = decoding.Limits(*request["limits"])
    name = request["name"] or request["path"] or ""
    try:
        if request["path"] is not None:
            data = decoding.read_file(request["path"], limits)
        decoded = decoding.decode(data, min_side=request["min_side"], name=name, limits=limits)
        pixels = decoded.pixels.tobytes()
    except errors.Unreadable as fault:
        return {"error": type(fault).__name__, "message": str(fault)}, b""
    except OSError as fault:
        return {"error": "Unreadable", "message": f"The file cannot be opened ({fault.strerror or fault})."}, b""
    except MemoryError:
        return {"error": "Unreadable", "message": "There is not enough memory to decode this picture."}, b""
    reply = {
        "format": decoded.format,
        "width": decoded.width,
        "height": decoded.height,
        "size": decoded.pixels.size,
        "bytes": len(pixels),
    }
    return reply, pixels


def _end_with_parent(requests: IO[bytes], switch: bool) -> None:
    """While a file is decoded nothing is sent: SIGIO on stdin then means that the parent is gone, and ends us."""
    try:
        import fcntl

        descriptor = requests.fileno()
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC if switch else flags & ~os.O_ASYNC)
    except (ImportError, OSError, AttributeError):
        pass  # without it the limit on the file ends us a little later


def _exactly(file: IO[bytes], length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        os._exit(0)  # the parent is gone
    return data


def _bound_memory(max_pixels: int) -> None:
    """A file that asks for more than an accepted picture can need fails, instead of pushing other programs out."""
    try:
        import resource

        limit = _BASE_BYTES + _BYTES_PER_PIXEL * max_pixels
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # macOS does not know RLIMIT_AS; the time limit still stands
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("800")
    except OSError:
        pass


if __name__ == "__main__":
    main()
