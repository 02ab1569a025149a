"""A decode worker whose forks have been taken over: what each says and writes is chosen by its order's limit of bytes."""

from __future__ import annotations

import hashlib
import os
import socket
import sys

from services.provider_pool.references import decode_words as words

CONTENT = b"what a provider would get"


def found(sha256: str | None, *, size_bytes: int = len(CONTENT)) -> bytes:
    word = words.Rewritten("png", 1, 1, size_bytes, sha256, 0.001)
    return words.encode(word) + b"\n"


TRUE = found(hashlib.sha256(CONTENT).hexdigest())
DECODED = words.encode(words.Decoded(0.001)) + b"\n"

# What is written, what is said, and with which code it ends.
LIES: dict[str, tuple[bytes, bytes, int]] = {
    "nothing at all": (CONTENT, b"", 0),
    "another file": (CONTENT[::-1], TRUE + DECODED, 0),
    "a longer file": (CONTENT + b"<script>", TRUE + DECODED, 0),
    "a shorter size": (CONTENT, found(hashlib.sha256(CONTENT).hexdigest(), size_bytes=3) + DECODED, 0),
    "no decode": (CONTENT, TRUE, 0),
    "only a decode": (CONTENT, DECODED, 0),
    "a refusal in words of its own": (
        CONTENT,
        TRUE + words.encode(words.Refused("x" * 99, "y" * 999)) + b"\n",
        0,
    ),
    "a full disk, when all was written": (
        CONTENT,
        TRUE + words.encode(words.NotWritten(28)) + b"\n",
        0,
    ),
    "no JSON": (CONTENT, b"\xff\xfe{{{\n", 0),
    "other JSON": (CONTENT, b'[1, {"type": "rewritten"}]\n', 0),
    "more than anybody reads": (CONTENT, TRUE + b" " * 60_000, 0),
    "all is well, and dies": (CONTENT, TRUE + DECODED, -11),
    "time that cannot be": (CONTENT, TRUE + words.encode(words.Decoded(-1e300)) + b"\n", 0),
    "a drawing that is drawn again": (CONTENT, found(None, size_bytes=0) + DECODED, 0),
}
HONEST = 1_001


def told(limit_bytes: int) -> tuple[bytes, bytes, int]:
    """Limits from 1 choose a lie, also where they are those of a drawing that is examined in its turn."""
    number = limit_bytes if limit_bytes <= len(LIES) else limit_bytes // 4
    return list(LIES.values())[number - 1] if number <= len(LIES) else (CONTENT, TRUE + DECODED, 0)


def main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as control:
        control.send(words.encode(words.Ready(("system_calls",))))
        while True:
            line, descriptors, _, _ = socket.recv_fds(control, words.LINE_BYTES, 3)
            if not line:
                return
            content, said, code = told(words.order.decode(line).bytes)
            _, target, pipe = descriptors
            os.write(target, content)
            os.write(pipe, said)
            for descriptor in descriptors:
                os.close(descriptor)
            control.send(words.encode(words.Ended(code, late=False)))


if __name__ == "__main__":
    main()
