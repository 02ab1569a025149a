"""The pool starts programs while it is called over gRPC, whose fork handlers would crash some of them before they begin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_pool_does_not_import_grpc_before_its_fork_handlers_are_switched_off() -> None:
    script = """
import sys
import services.provider_pool.__main__
from services.chassis.process import run
print(sorted({name.partition(".")[0] for name in sys.modules} & {"grpc"}))
"""
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "[]\n"
