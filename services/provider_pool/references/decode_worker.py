"""The process that reference media are decoded in: started with one end of a Unix socket, it forks once for each of them.

Run as `python -m services.provider_pool.references.decode_worker DESCRIPTOR images|recordings`. It loads the decoders, gives
up what it can do without, and never looks at a medium itself: its fork does, in the jail, and ends. So nothing of one
customer's medium meets another's.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from typing import Final, NoReturn

import msgspec

from services.provider_pool.references import decode_words as words
from services.provider_pool.references import jail

# It takes 20 ms where nothing else happens.
_REHEARSAL_S: Final = 10.0
# How often a fork is looked at, at least and at most.
_LOOK_S: Final = 0.25
_SHORTEST_LOOK_S: Final = 0.01
# Looks at one that did nothing meanwhile. On however busy a machine, whoever wants a processor has one within a second.
_IDLE_LOOKS: Final = 4


Say = Callable[[words.Word], None]


@dataclass(frozen=True, slots=True)
class _Craft:
    """What this process can do."""

    warm_up: Callable[[], None]
    examine: Callable[[mmap | bytes, words.AnyOrder, int, Say], None]
    refusal: Callable[[BaseException], words.Refused | words.NotWritten]


def _craft(subject: str) -> _Craft:
    # Only one is loaded: each is tens of megabytes, and what is not there cannot be broken into.
    if subject == words.RECORDINGS:
        from services.provider_pool.references.recordings import copying

        return _Craft(copying.warm_up, copying.examine, copying.refusal)
    from services.provider_pool.references import decoding

    return _Craft(decoding.warm_up, decoding.examine, decoding.refusal)


def main() -> int:
    """Exit codes: 0 the parent is gone, 1 this process cannot do its work, and said so."""
    # A terminal's Ctrl-C reaches the whole group; the parent decides when this ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Kept until it is waited for: a fork that ends early is not missed.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    with socket.socket(fileno=int(sys.argv[1])) as control:
        try:
            craft = _craft(sys.argv[2])
            craft.warm_up()
            missing = jail.settle()
            _rehearse(craft)
        except Exception as error:
            control.send(words.encode(words.Failed(f"{type(error).__name__}: {error}")))
            return 1
        # What is there now is never collected, so that forks share its pages.
        gc.collect()
        gc.freeze()
        control.send(words.encode(words.Ready(missing)))
        serve(control, craft)
    return 0


def _rehearse(craft: _Craft) -> None:
    """Decode in the jail once, so that a jail that is too tight on this system is not taken for a bad image each time."""
    own_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            jail.enter(file_bytes=0, parent_pid=own_pid)
            craft.warm_up()
            code = 0
        finally:
            os._exit(code)
    ended = _end(pid, _REHEARSAL_S, _REHEARSAL_S)
    if ended.code != 0:
        raise RuntimeError(f"in the jail the decoders end with code {ended.code}")


def serve(control: socket.socket, craft: _Craft) -> None:
    """Fork for every order until the parent is gone."""
    while True:
        line, descriptors, _, _ = socket.recv_fds(control, words.LINE_BYTES, 3)
        if not line:
            return
        order = words.order.decode(line)
        _forget_earlier_ends()
        answer = _answer(order, descriptors, control, craft)
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(words.encode(answer))


def _answer(
    order: words.AnyOrder, descriptors: list[int], control: socket.socket, craft: _Craft
) -> words.Notice:
    own_pid = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        return words.Failed(f"it cannot fork: {error.strerror}")
    if pid == 0:
        control.close()
        _live(craft, order, *descriptors, parent_pid=own_pid)
    return _end(pid, order.deadline_s, order.patience_s)


def _forget_earlier_ends() -> None:
    while signal.sigtimedwait({signal.SIGCHLD}, 0) is not None:
        pass


def _end(pid: int, deadline_s: float, patience_s: float) -> words.Ended:
    """Wait for the fork to end, and end it at the deadline.

    The deadline is of processor time: a machine that is busy with other things is not the image's fault. It is of the wall
    clock for a fork that does nothing.
    """
    begun = time.monotonic()
    spent_s, idle_looks = 0.0, 0
    late = False
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        passed_s, before_s = time.monotonic() - begun, spent_s
        spent_s = _spent_s(pid, otherwise=passed_s)
        idle_looks = idle_looks + 1 if spent_s == before_s else 0
        is_stuck = passed_s >= deadline_s and idle_looks >= _IDLE_LOOKS
        if is_stuck or spent_s >= deadline_s or passed_s >= patience_s:
            late = True
            os.kill(pid, signal.SIGKILL)
            break
        signal.sigtimedwait({signal.SIGCHLD}, max(_SHORTEST_LOOK_S, min(_LOOK_S, deadline_s - spent_s)))
    _, status = os.waitpid(pid, 0)
    return words.Ended(os.waitstatus_to_exitcode(status), late)


def _spent_s(pid: int, otherwise: float) -> float:
    """The processor time of another process; `otherwise` where the system does not tell."""
    try:
        # The number of its clock, as clock_getcpuclockid makes it, which Python does not have.
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return otherwise


def _live(
    craft: _Craft, order: words.AnyOrder, source: int, target: int, pipe: int, *, parent_pid: int
) -> NoReturn:
    """The fork's whole life."""
    code = 1
    try:
        content = _mapped(source, order.bytes)
        jail.enter(file_bytes=order.file_bytes, parent_pid=parent_pid)
        _examine(craft, content, order, target, pipe)
        code = 0
    finally:
        # Nothing of the parent's Python may run to its end here: no handlers, no buffers.
        os._exit(code)


def _examine(craft: _Craft, content: mmap | bytes, order: words.AnyOrder, target: int, pipe: int) -> None:
    def say(word: msgspec.Struct) -> None:
        os.write(pipe, words.encode(word) + b"\n")

    try:
        craft.examine(content, order, target, say)
    except Exception as error:
        say(craft.refusal(error))


def _mapped(source: int, limit_bytes: int) -> mmap | bytes:
    # One byte more than may be, by which the walk knows that there are too many.
    length = min(os.fstat(source).st_size, limit_bytes + 1)
    # Nothing can be mapped of nothing.
    return mmap(source, length, access=ACCESS_READ) if length else b""


if __name__ == "__main__":
    sys.exit(main())
