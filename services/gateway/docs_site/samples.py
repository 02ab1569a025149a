"""The same request in three languages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """A request as code."""

    language: str
    title: str
    code: str


def samples_of(method: str, server: str, path: str, body: Any, keyed: bool) -> tuple[Sample, ...]:
    """curl, Python and JavaScript. keyed: the request carries an Idempotency-Key."""
    shown = path.replace("{jobId}", "job_01jz8b7q4x8k2p9w3m5c6n7r8s")
    return (
        Sample("curl", "curl", _curl(method, server + shown, body, keyed)),
        Sample("python", "Python", _python(method, server + shown, body, keyed)),
        Sample("javascript", "JavaScript", _javascript(method, server + shown, body, keyed)),
    )


def _curl(method: str, url: str, body: Any, keyed: bool) -> str:
    lines = [f"curl {url}" if method == "GET" else f"curl -X {method} {url}"]
    lines.append('-H "Authorization: Bearer $API_KEY"')
    if keyed:
        lines.append('-H "Idempotency-Key: $(uuidgen)"')
    if body is not None:
        lines.append('-H "Content-Type: application/json"')
        pretty = json.dumps(body, indent=2, ensure_ascii=False).replace("\n", "\n  ")
        lines.append(f"-d '{pretty}'")
    return " \\\n  ".join(lines)


def _python(method: str, url: str, body: Any, keyed: bool) -> str:
    headers = ['"Authorization": f"Bearer {os.environ[\'API_KEY\']}"']
    imports = ["import os"]
    if keyed:
        imports.append("import uuid")
        headers.append('"Idempotency-Key": str(uuid.uuid4())')
    arguments = [f'"{url}"', "headers={\n        " + ",\n        ".join(headers) + ",\n    }"]
    if body is not None:
        fields = ",\n        ".join(f'"{name}": {value!r}' for name, value in body.items()).replace("'", '"')
        arguments.append("json={\n        " + fields + ",\n    }")
    call = f"requests.{method.lower()}(\n    " + ",\n    ".join([*arguments, "timeout=30"]) + ",\n)"
    return "\n".join(
        [
            *imports,
            "import requests",
            "",
            f"answer = {call}",
            "answer.raise_for_status()",
            "print(answer.json())",
        ]
    )


def _javascript(method: str, url: str, body: Any, keyed: bool) -> str:
    headers = ["Authorization: `Bearer ${process.env.API_KEY}`"]
    if keyed:
        headers.append('"Idempotency-Key": crypto.randomUUID()')
    if body is not None:
        headers.append('"Content-Type": "application/json"')
    options = [] if method == "GET" else [f'method: "{method}"']
    options.append("headers: {\n    " + ",\n    ".join(headers) + ",\n  }")
    if body is not None:
        lines = json.dumps(body, indent=2, ensure_ascii=False).replace("\n", "\n  ")
        options.append(f"body: JSON.stringify({lines})")
    call = f'await fetch("{url}", {{\n  ' + ",\n  ".join(options) + ",\n});"
    return f"const answer = {call}\nconsole.log(await answer.json());"
