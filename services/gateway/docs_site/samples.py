"""The same request in three languages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_RECEIVERS: Final = Path(__file__).parent / "receivers"


@dataclass(frozen=True, slots=True)
class Sample:
    """A request as code."""

    language: str
    title: str
    code: str


@dataclass(frozen=True, slots=True)
class Request:
    """A request to show. form: the body is one, not JSON. keyed: it carries an Idempotency-Key. public: and no API key."""

    method: str
    url: str
    body: Any
    form: bool
    keyed: bool
    public: bool


def samples_of(request: Request) -> tuple[Sample, ...]:
    """curl, Python and JavaScript."""
    return (
        Sample("curl", "curl", _curl(request)),
        Sample("python", "Python", _python(request)),
        Sample("javascript", "JavaScript", _javascript(request)),
    )


def receivers() -> tuple[Sample, ...]:
    """Programs that receive webhooks and check where they come from."""
    return (
        Sample("python", "Python", (_RECEIVERS / "receiver.py.txt").read_text()),
        Sample("javascript", "JavaScript", (_RECEIVERS / "receiver.js").read_text()),
        Sample("curl", "curl, openssl", (_RECEIVERS / "receiver.sh").read_text()),
    )


def _curl(request: Request) -> str:
    url, body = f'"{request.url}"' if "?" in request.url else request.url, request.body
    lines = [f"curl {url}" if request.method == "GET" else f"curl -X {request.method} {url}"]
    if not request.public:
        lines.append('-H "Authorization: Bearer $API_KEY"')
    if request.keyed:
        lines.append('-H "Idempotency-Key: $(uuidgen)"')
    if request.form:
        lines += [f"--data-urlencode '{name}={value}'" for name, value in body.items()]
    elif body is not None:
        lines.append('-H "Content-Type: application/json"')
        pretty = json.dumps(body, indent=2, ensure_ascii=False).replace("\n", "\n  ")
        lines.append(f"-d '{pretty}'")
    return " \\\n  ".join(lines)


def _python(request: Request) -> str:
    body = request.body
    headers = [] if request.public else ['"Authorization": f"Bearer {os.environ[\'API_KEY\']}"']
    imports = [] if request.public else ["import os"]
    if request.keyed:
        imports.append("import uuid")
        headers.append('"Idempotency-Key": str(uuid.uuid4())')
    arguments = [f'"{request.url}"']
    if headers:
        arguments.append("headers={\n        " + ",\n        ".join(headers) + ",\n    }")
    if body is not None:
        fields = ",\n        ".join(f'"{name}": {value!r}' for name, value in body.items()).replace("'", '"')
        arguments.append(f"{'data' if request.form else 'json'}={{\n        " + fields + ",\n    }")
    call = f"requests.{request.method.lower()}(\n    " + ",\n    ".join([*arguments, "timeout=30"]) + ",\n)"
    return "\n".join(
        [
            *imports,
            "import requests",
            "",
            f"answer = {call}",
            "answer.raise_for_status()",
            *([] if request.method == "DELETE" else ["print(answer.json())"]),
        ]
    )


def _javascript(request: Request) -> str:
    body = request.body
    headers = [] if request.public else ["Authorization: `Bearer ${process.env.API_KEY}`"]
    if request.keyed:
        headers.append('"Idempotency-Key": crypto.randomUUID()')
    if body is not None and not request.form:
        headers.append('"Content-Type": "application/json"')
    options = [] if request.method == "GET" else [f'method: "{request.method}"']
    if headers:
        options.append("headers: {\n    " + ",\n    ".join(headers) + ",\n  }")
    if request.form:
        fields = json.dumps(body, indent=2, ensure_ascii=False).replace("\n", "\n  ")
        options.append(f"body: new URLSearchParams({fields})")
    elif body is not None:
        lines = json.dumps(body, indent=2, ensure_ascii=False).replace("\n", "\n  ")
        options.append(f"body: JSON.stringify({lines})")
    call = f'await fetch("{request.url}", {{\n  ' + ",\n  ".join(options) + ",\n});"
    shown = "answer.status" if request.method == "DELETE" else "await answer.json()"
    return f"const answer = {call}\nconsole.log({shown});"
