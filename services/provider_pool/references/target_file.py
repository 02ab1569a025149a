"""The one file that a process in the jail may write."""

from __future__ import annotations

import errno
import os
from typing import Final

__all__ = ["TargetFailed", "write_all"]

_TOO_LARGE: Final = errno.EFBIG


class TargetFailed(Exception):
    """The file takes no more bytes; `is_full` where that is because it has as many as it may have."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.errno = number
        self.is_full = number == _TOO_LARGE


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write all of it. Raises TargetFailed."""
    left = memoryview(content)
    try:
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError as error:
        raise TargetFailed(error.errno or errno.EIO) from None
