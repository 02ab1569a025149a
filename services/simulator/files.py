"""Output files: served at links that expire, as object stores serve them."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from services.simulator.drawings import Drawing

# A run of the soak makes tens of thousands; the oldest links die first.
_LIMIT: Final = 200_000
PREFIX: Final = "/_files"


@dataclass(frozen=True, slots=True)
class File:
    """One output. Without `expires_ms` its link lives as long as the simulator."""

    token: str
    provider: str
    key: str
    drawing: Drawing
    expires_ms: int | None
    has_wrong_type: bool = False

    def url(self, base_url: str) -> str:
        """Where it is, under the address at which the simulator was reached."""
        link = f"{base_url}{PREFIX}/{self.token}/output.{self.drawing.extension}"
        return (
            link
            if self.expires_ms is None
            else f"{link}?X-Expires={self.expires_ms}&X-Signature={self.token[:16]}"
        )

    def is_expired(self, now_ms: int) -> bool:
        return self.expires_ms is not None and now_ms >= self.expires_ms


class Files:
    """Every file by its token."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, File] = OrderedDict()

    def publish(
        self,
        provider: str,
        key: str,
        drawing: Drawing,
        *,
        expires_ms: int | None,
        has_wrong_type: bool = False,
    ) -> File:
        """Gives a drawing a link of its own."""
        token = secrets.token_hex(20)
        file = File(token, provider, key, drawing, expires_ms, has_wrong_type)
        self._files[token] = file
        if len(self._files) > _LIMIT:
            self._files.popitem(last=False)
        return file

    def restore(self, file: File) -> None:
        """Takes on a file of an earlier run, under the link that it had."""
        self._files[file.token] = file

    def find(self, token: str) -> File | None:
        return self._files.get(token)
