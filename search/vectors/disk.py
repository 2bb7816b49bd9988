"""The file operations the embedding file is made of, as one small object, so that faults can be put under it."""

from __future__ import annotations

import fcntl
import os


class Disk:
    """Positioned writes, allocation and flushing on a file descriptor."""

    def write(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data` at `offset`; raises OSError (ENOSPC, EIO)."""
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, offset)
            view = view[written:]
            offset += written

    def allocate(self, fd: int, size: int) -> None:
        """Make the file at least `size` bytes long with its blocks reserved, new bytes zero.

        Raises OSError (ENOSPC) where there is no room; the file's length is then what it was.
        """
        before = os.fstat(fd).st_size
        if size <= before:
            return
        if not hasattr(os, "posix_fallocate"):  # macOS: the write itself will say when the disk is full
            os.ftruncate(fd, size)
            return
        try:
            os.posix_fallocate(fd, before, size - before)
        except OSError:
            os.ftruncate(fd, before)
            raise

    def flush(self, fd: int) -> None:
        """Return only when everything written is on stable storage, the file's length included."""
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync alone leaves data in the drive's cache
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fsync(fd)

    def flush_folder(self, path: str) -> None:
        """Make names in a folder (a rename, a new file) durable."""
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
