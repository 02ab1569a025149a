"""A decode worker whose system has no process left for its first image."""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

from services.provider_pool.references import decode_worker

_fork = os.fork


def _refuse() -> NoReturn:
    os.fork = _fork
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _rehearse() -> int:
    os.fork = _refuse
    return _fork()


if __name__ == "__main__":
    os.fork = _rehearse
    sys.exit(decode_worker.main())
