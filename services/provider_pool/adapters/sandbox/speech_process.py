"""Says one text: reads it as a JSON line on stdin, writes the samples a second and the sound itself on stdout.

A process for each text, because the speech library remembers what it said: only in a new process is the same text the
same sound. It also keeps the library, which is under the GNU General Public License, apart from everything else.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from typing import Any, Final

from services.provider_pool.adapters.sandbox.process_limits import die_with_parent

# Of the library's interface: give the sound to a callback at once; text is UTF-8; the numbers of its parameters.
_SYNCHRONOUS: Final = 2
_UTF8: Final = 1
_SPEED, _PITCH, _MOVEMENT = 1, 3, 4
_BUFFER_MS: Final = 200
_SEED: Final = 1
_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)

HEAD: Final = struct.Struct("<I")
"""What comes before the sound: how many samples a second it has. The sound is signed 16-bit little-endian, mono."""


class SpeechFailed(Exception):
    """The speech library refused."""


def say(text: str, voice: str, words_a_minute: int, pitch: int, movement: int) -> tuple[int, bytes]:
    """Samples a second, and the sound. Once a process. Raises SpeechFailed, and ImportError without the library."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = espeakng_loader.get_data_path().encode()
    rate_hz = library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, data, 0)
    if rate_hz <= 0 or library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise SpeechFailed("the library or its voice could not be started")
    library.espeak_ng_SetRandSeed(_SEED)
    for parameter, value in ((_SPEED, words_a_minute), (_PITCH, pitch), (_MOVEMENT, movement)):
        library.espeak_SetParameter(parameter, value, 0)
    heard = bytearray()

    def hear(samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            heard.extend(ctypes.string_at(samples, count * 2))
        return 0

    callback = _CALLBACK(hear)
    library.espeak_SetSynthCallback(callback)
    content = text.encode("utf-8", "replace")
    size = ctypes.c_size_t(len(content) + 1)
    if library.espeak_Synth(content, size, 0, 0, 0, _UTF8, None, None) != 0 or not heard:
        raise SpeechFailed("the library could not say it")
    return rate_hz, bytes(heard)


def main() -> None:
    """Say what stdin asks for."""
    die_with_parent()
    # Whatever the library prints must not come into the sound.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    rate_hz, sound = say(**json.loads(sys.stdin.buffer.readline()))
    answer.write(HEAD.pack(rate_hz) + sound)
    answer.flush()


if __name__ == "__main__":
    main()
