"""A real store of objects for tests: SeaweedFS, a development dependency, in a temporary folder on free loopback ports."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.chassis.object_place import ObjectPlace
from services.chassis.settings import Secret
from services.chassis.sigv4 import EMPTY_SHA256

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

HOST: Final = "127.0.0.1"
ACCESS_KEY: Final = "atelier-tests"
SECRET_KEY: Final = "a-secret-that-opens-one-bucket"

# It needs three seconds on an idle machine, and test machines are not idle.
_READY_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 15.0

# Ends the server when its input ends, so that it does not outlive a test process that is killed. Asked to stop, it takes
# its time; what it holds is thrown away anyway.
_WATCHED: Final = '"$@" & server=$!; read -r _; kill -KILL $server; wait $server'


class ObjectServer:
    """One server; a context manager, after which it is stopped and its folder gone."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="atelier-objects-"))
        self._server: subprocess.Popen[bytes] | None = None
        self._buckets = 0
        # All at once, so that no two are the same.
        with ExitStack() as taken:
            self._ports = [_free_port(taken) for _ in range(8)]
        self.endpoint = f"http://{HOST}:{self._ports[0]}"

    def __enter__(self) -> Self:
        try:
            self._start()
            self._until_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def bucket(self) -> ObjectPlace:
        """A new, empty bucket."""
        self._buckets += 1
        place = self.place(f"bucket-{self._buckets}")
        if self._status("PUT", place) != 200:
            raise AssertionError("no bucket could be made:\n" + self._log().read_text()[-2_000:])
        return place

    def place(self, bucket: str, *, secret_key: str = SECRET_KEY) -> ObjectPlace:
        """A bucket that may be there or not."""
        return ObjectPlace(self.endpoint, "us-east-1", bucket, Secret(ACCESS_KEY), Secret(secret_key))

    def settings(self, prefix: str, place: ObjectPlace) -> dict[str, str]:
        """The variables that lead a service to a bucket."""
        (self._folder / "secret").write_text(SECRET_KEY + "\n")
        return {
            f"{prefix}ENDPOINT": place.endpoint,
            f"{prefix}BUCKET": place.bucket,
            f"{prefix}ACCESS_KEY": ACCESS_KEY,
            f"{prefix}SECRET_KEY_FILE": str(self._folder / "secret"),
        }

    def _log(self) -> Path:
        return self._folder / "log"

    def _start(self) -> None:
        credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = [{"name": "tests", "credentials": credentials, "actions": actions}]
        (self._folder / "s3.json").write_text(json.dumps({"identities": identities}))
        (self._folder / "data").mkdir()
        doors = ("s3", "master", "volume", "filer")
        names = [f"{door}.port{kind}" for door in doors for kind in ("", ".grpc")]
        options = {name: str(port) for name, port in zip(names, self._ports, strict=True)}
        options |= {
            "ip": HOST,
            "ip.bind": HOST,
            "dir": str(self._folder / "data"),
            "filer": "true",
            "filer.localSocket": str(self._folder / "filer.sock"),
            "s3": "true",
            "s3.config": str(self._folder / "s3.json"),
            "s3.localSocket": str(self._folder / "s3.sock"),
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            "master.telemetry": "false",
            # A bucket begins with seven.
            "volume.max": "200",
            "master.volumeSizeLimitMB": "64",
        }
        program = Path(sys.executable).with_name("weed")
        with self._log().open("wb") as said:
            self._server = subprocess.Popen(
                ["sh", "-c", _WATCHED, "sh", program, "server", *(f"-{n}={v}" for n, v in options.items())],
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def _until_ready(self) -> None:
        ends_s = time.monotonic() + _READY_TIMEOUT_S
        while time.monotonic() < ends_s:
            try:
                if self._status("PUT", self.place("first")) == 200 and self._takes_objects():
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise AssertionError("the store of objects did not start:\n" + self._log().read_text()[-2_000:])

    def _takes_objects(self) -> bool:
        return self._status("PUT", self.place("first"), "a") == 200

    def _status(self, method: str, place: ObjectPlace, key: str = "") -> int:
        address, headers = place.signed(method, key, {}, {}, EMPTY_SHA256, datetime.now(UTC))
        connection = http.client.HTTPConnection(HOST, self._ports[0], timeout=10)
        try:
            connection.request(method, address.removeprefix(self.endpoint), b"", headers)
            return connection.getresponse().status
        except http.client.HTTPException as broken:
            raise ConnectionError from broken
        finally:
            connection.close()

    def _stop(self) -> None:
        if self._server is not None and self._server.stdin is not None:
            self._server.stdin.close()
            try:
                self._server.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _free_port(taken: ExitStack) -> int:
    listening = taken.enter_context(socket.socket())
    listening.bind((HOST, 0))
    return int(listening.getsockname()[1])
