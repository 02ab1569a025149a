from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tidy.source import GENERATED, ROOT, name

PROTOS = sorted((ROOT / "protos").glob("*/v1/*.proto"))
REASONS = re.compile(r"^\s*enum (\w*Reason) \{\n(.*?)^\s*\}", re.MULTILINE | re.DOTALL)
VALUE = re.compile(r"^\s*([A-Z][A-Z0-9_]*) = (\d+)")


def _undocumented(body: str) -> list[str]:
    missing, before = [], ""
    for line in body.splitlines():
        value = VALUE.match(line)
        # Zero is protobuf's "not set"; it is never sent, and there is nothing to say about it.
        if value and value[2] != "0" and not before.strip().startswith("//"):
            missing.append(value[1])
        before = line
    return missing


@pytest.mark.parametrize("proto", PROTOS, ids=name)
def test_every_reason_says_what_happened(proto: Path) -> None:
    reasons = REASONS.findall(proto.read_text())
    assert "Reason" in {enum for enum, _ in reasons}
    assert [value for _, body in reasons for value in _undocumented(body)] == []


@pytest.mark.parametrize("proto", PROTOS, ids=name)
def test_a_proto_stands_alone(proto: Path) -> None:
    imports = re.findall(r'^import "(.*)";', proto.read_text(), re.MULTILINE)
    assert [path for path in imports if not path.startswith("google/protobuf/")] == []


@pytest.mark.parametrize("proto", PROTOS, ids=name)
def test_every_proto_has_its_stubs(proto: Path) -> None:
    folder = GENERATED / proto.relative_to(ROOT / "protos").parent
    stubs = {f"{proto.stem}_pb2{kind}" for kind in (".py", ".pyi", "_grpc.py", "_grpc.pyi")}
    assert stubs <= {path.name for path in folder.iterdir()}
