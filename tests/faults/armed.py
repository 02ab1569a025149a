"""`python -m tests.faults.armed CONTROL JOURNAL SERVICE [POINT]`: a service as it always runs, with its crash points listened to.

CONTROL is the number of an inherited socket: each line on it arms one point and is answered when it is armed. JOURNAL is a
file that takes a line for every point that is passed, and keeps it when the process dies the moment after. POINT is where it
dies in this life, armed before the service begins.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
import threading

from services.chassis import crash_points

# What a point may do to its process. Both reach every thread at once, and no handler runs.
ACTS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class Trap:
    """Writes down what is passed, and springs at the n-th passing of an armed point."""

    def __init__(self, journal: str, *points: str) -> None:
        # O_APPEND and one write a line: lines of several threads never mix, and a kill leaves whole ones.
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._armed: dict[str, tuple[int, signal.Signals]] = dict.fromkeys(points, (1, signal.SIGKILL))
        self._lock = threading.Lock()

    def __call__(self, point: str, subject: str) -> None:
        os.write(self._journal, f"{point} {subject}\n".encode())
        if point in self._armed and (act := self._sprung(point)) is not None:
            os.kill(os.getpid(), act)

    def _sprung(self, point: str) -> signal.Signals | None:
        with self._lock:
            left, act = self._armed.get(point, (0, signal.SIGKILL))
            if left > 1:
                self._armed[point] = (left - 1, act)
                return None
            return None if self._armed.pop(point, None) is None else act

    def obey(self, control: socket.socket) -> None:
        """Take orders until the other side is gone."""
        with control, control.makefile("rw", encoding="utf-8") as lines:
            for line in lines:
                order = json.loads(line)
                with self._lock:
                    self._armed.clear()
                    if order["point"]:
                        self._armed[order["point"]] = (order["nth"], ACTS[order["act"]])
                lines.write("armed\n")
                lines.flush()


def main() -> None:
    control, journal, service, *points = sys.argv[1:]
    trap = Trap(journal, *points)
    ear = socket.socket(fileno=int(control))
    ear.set_inheritable(False)
    threading.Thread(target=trap.obey, args=(ear,), name="crash-control", daemon=True).start()
    crash_points.listen(trap)
    sys.argv = [f"services.{service}"]
    runpy.run_module(f"services.{service}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
