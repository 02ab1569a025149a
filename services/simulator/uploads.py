"""What customers upload: forms as object stores take them, strict about time, order and credentials."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.chassis.clock import rfc3339
from services.simulator.forms import Part

PREFIX: Final = "/_s3"
_BUCKET: Final = "image-server-uploads"
_LIMIT: Final = 100_000
# Of all uploads together; of older ones it is remembered only that they came.
_KEPT_BYTES: Final = 256 * 1024 * 1024


class FormRefused(Exception):
    """An upload that an object store does not take: its status and its code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(slots=True)
class Upload:
    """A place for one file, and the file once it came."""

    id: str
    provider: str
    key: str
    object_key: str
    content_type: str
    made_ms: int
    expires_ms: int
    fields: dict[str, str]
    size_bytes: int = 0
    content: bytes = b""
    arrived_ms: int | None = None

    @property
    def has_arrived(self) -> bool:
        return self.arrived_ms is not None

    def url(self, base_url: str) -> str:
        """Where the form is posted to."""
        return f"{base_url}{PREFIX}/{_BUCKET}/"


class Uploads:
    """Every place that was given out, by account and id."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._uploads: OrderedDict[tuple[str, str], Upload] = OrderedDict()
        self._by_object_key: dict[str, Upload] = {}
        self._arrived: OrderedDict[str, Upload] = OrderedDict()
        self._kept_bytes = 0

    def open(
        self,
        provider: str,
        key: str,
        upload_id: str,
        *,
        content_type: str,
        extension: str,
        now_ms: int,
        lifetime_s: float,
    ) -> Upload:
        """A place that takes one file of that type for `lifetime_s`."""
        expires_ms = now_ms + round(lifetime_s * 1000)
        object_key = f"uploads/{upload_id}.{extension}"
        fields = self._signed(object_key, content_type, now_ms, expires_ms)
        upload = Upload(upload_id, provider, key, object_key, content_type, now_ms, expires_ms, fields)
        self._uploads[provider, upload_id] = self._by_object_key[object_key] = upload
        if len(self._uploads) > _LIMIT:
            _, oldest = self._uploads.popitem(last=False)
            self._by_object_key.pop(oldest.object_key, None)
        return upload

    def find(self, provider: str, key: str, upload_id: str) -> Upload | None:
        """An upload of this account, arrived or not: nobody uses another's."""
        upload = self._uploads.get((provider, upload_id))
        return upload if upload is not None and upload.key == key else None

    def remove(self, upload: Upload) -> None:
        self._uploads.pop((upload.provider, upload.id), None)
        self._by_object_key.pop(upload.object_key, None)

    def of_object(self, object_key: str) -> Upload | None:
        return self._by_object_key.get(object_key)

    def take(self, upload: Upload, content: bytes, now_ms: int) -> None:
        """Keeps what came."""
        upload.arrived_ms, upload.size_bytes, upload.content = now_ms, len(content), content
        self._arrived[upload.object_key] = upload
        self._kept_bytes += len(content)
        while self._kept_bytes > _KEPT_BYTES:
            _, oldest = self._arrived.popitem(last=False)
            self._kept_bytes -= len(oldest.content)
            oldest.content = b""

    def named(self, parts: list[Part]) -> Upload | None:
        """The place that a form is for, by its key field."""
        keys = [part.text for part in parts if part.name == "key"]
        return self._by_object_key.get(keys[0]) if keys else None

    def take_form(self, headers: Mapping[str, str], parts: list[Part], now_ms: int) -> Upload:
        """Takes a posted form as S3 does. Raises FormRefused."""
        if "Authorization" in headers:
            raise FormRefused(400, "InvalidArgument", "Only one auth mechanism allowed")
        names = [part.name for part in parts]
        if "file" not in names:
            raise FormRefused(400, "InvalidArgument", "POST requires exactly one file upload per request.")
        # What stands after the file is not read, so a field there is a field that is missing.
        before = parts[: names.index("file")]
        fields = {part.name: part.content.decode("utf-8", "replace") for part in before}
        upload = self._by_object_key.get(fields.get("key", ""))
        if upload is None:
            raise FormRefused(400, "InvalidArgument", "Bucket POST must contain a field named 'key'.")
        for name, value in upload.fields.items():
            if fields.get(name) != value:
                raise FormRefused(
                    403, "AccessDenied", f"Invalid according to Policy: Policy Condition failed: {name}"
                )
        if now_ms >= upload.expires_ms:
            raise FormRefused(403, "AccessDenied", "Invalid according to Policy: Policy expired.")
        self.take(upload, parts[names.index("file")].content, now_ms)
        return upload

    def _signed(self, object_key: str, content_type: str, now_ms: int, expires_ms: int) -> dict[str, str]:
        day = rfc3339(now_ms)[:10].replace("-", "")
        moment = rfc3339(now_ms)[:19].replace("-", "").replace(":", "") + "Z"
        policy = json.dumps({"expiration": rfc3339(expires_ms), "conditions": [{"key": object_key}]}).encode()
        encoded = base64.b64encode(policy).decode()
        return {
            "Content-Type": content_type,
            "bucket": _BUCKET,
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"SIMULATED/{day}/us-east-1/s3/aws4_request",
            "X-Amz-Date": moment,
            "X-Amz-Security-Token": "simulated",
            "key": object_key,
            "Policy": encoded,
            "X-Amz-Signature": hmac.new(self._secret, encoded.encode(), hashlib.sha256).hexdigest(),
        }
