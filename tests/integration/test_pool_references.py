"""References at the pool's own door: a real process, a real HTTPS server beside it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from services.chassis.coalesce import Coalescer, unary_of
from services.chassis.errors import Kind, ServiceError
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from tests.egress.certificates import Credentials
from tests.egress.evil_server import Canary, EvilServer, Scene
from tests.integration.pool_process import LIMITS, Pool, following, picture, running

SECRET = "canary-0815"


def png(width: int = 64, height: int = 48, colour: str = "teal") -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(written, "PNG")
    return written.getvalue()


def answer(content: bytes, *, status: str = "200 OK", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: image/png\r\nContent-Length: {len(content)}\r\n{more}\r\n"
    return head.encode() + content


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return Credentials(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def server(credentials: Credentials) -> AsyncIterator[EvilServer]:
    async with EvilServer(credentials.good) as found:
        found.scenes["/cat.png"] = answer(png())
        yield found


@pytest.fixture
def allowed(credentials: Credentials, server: EvilServer) -> dict[str, str]:
    """What lets the pool reach the server, and nothing else of this machine."""
    return {
        "ATELIER_EGRESS_ALLOW": f"127.0.0.1/32:{server.port}",
        "ATELIER_EGRESS_CA_FILE": str(credentials.trusted.file),
    }


@pytest.fixture
async def pool(tmp_path: Path, allowed: dict[str, str]) -> AsyncIterator[Pool]:
    async with running(tmp_path, **allowed) as found:
        await found.account(concurrency_limit=50)
        yield found


def at(server: EvilServer, path: str = "/cat.png", scene: Scene | None = None) -> str:
    if scene is not None:
        server.scenes[path] = scene
    return f"https://127.0.0.1:{server.port}{path}"


async def free_port(host: str) -> int:
    listener = await asyncio.start_server(lambda reader, writer: None, host, 0)
    port: int = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    return port


async def prepared(pool: Pool, wanted: pb.Generation, attempt_id: str = "job_1:1") -> pb.Failure | None:
    await pool.lease(attempt_id, generation=wanted)
    return await pool.prepare(attempt_id, wanted)


async def test_a_url_is_fetched_once_after_the_lease_and_reaches_the_provider(
    pool: Pool, server: EvilServer
) -> None:
    wanted = following(at(server))
    with pytest.raises(ServiceError) as refusal:
        await pool.prepare("job_1:1", wanted)
    assert refusal.value.reason == "ATTEMPT_NOT_FOUND"
    assert server.connections == 0
    await pool.lease("job_1:1", generation=wanted)
    assert await asyncio.gather(*(pool.prepare("job_1:1", wanted) for _ in range(8))) == [None] * 8
    assert await pool.prepare("job_1:1", wanted) is None
    assert server.paths() == ["/cat.png"]
    assert pool.references() == ["job_1-0"]
    assert (await pool.submit("job_1:1", wanted)).state == pb.ATTEMPT_STATE_RUNNING
    assert (await pool.ended("job_1:1")).state == pb.ATTEMPT_STATE_SUCCEEDED
    metrics = await pool.metrics()
    assert 'atelier_pool_reference_fetches_total{outcome="ready"} 1.0' in metrics


async def test_an_upload_is_kept_rewritten_and_reaches_the_provider(pool: Pool) -> None:
    content = png(80, 60) + b"<script>something that is no part of the picture</script>"
    staged = await pool.stage(content, piece_bytes=11)
    assert staged.sha256 == hashlib.sha256(content).digest()
    assert (staged.content_type, staged.width, staged.height) == ("image/png", 80, 60)
    (file,) = pool.folder.glob("references/*.png")
    kept = file.read_bytes()
    assert (len(kept), b"script" in kept) == (staged.size_bytes, False)
    wanted = following(staged.reference_id)
    assert await prepared(pool, wanted) is None
    assert (await pool.submit("job_1:1", wanted)).state == pb.ATTEMPT_STATE_RUNNING
    assert (await pool.ended("job_1:1")).state == pb.ATTEMPT_STATE_SUCCEEDED


async def test_what_is_dropped_is_gone_and_a_submission_without_it_sends_nothing(
    pool: Pool, server: EvilServer
) -> None:
    staged = await pool.stage(png())
    wanted = following(at(server), staged.reference_id)
    assert await prepared(pool, wanted) is None
    await pool.drop("job_1", staged.reference_id)
    await pool.drop("job_1", staged.reference_id)
    assert [path for path in pool.folder.glob("references/**/*") if path.is_file()] == []
    status = await pool.submit("job_1:1", wanted)
    assert status.state == pb.ATTEMPT_STATE_FAILED
    assert status.failure.reason == pb.FAILURE_REASON_REFERENCE_UNAVAILABLE
    assert status.failure.next_step == pb.NEXT_STEP_FAIL
    assert list(pool.folder.glob("sandbox/orders/*/*.json")) == []


async def test_a_lost_answer_is_found_by_the_content_of_the_references(pool: Pool) -> None:
    await pool.account(concurrency_limit=50)
    asked = following((await pool.stage(png())).reference_id)
    other = following((await pool.stage(png(colour="plum"))).reference_id)
    asked.prompt = other.prompt = picture("unknown").prompt
    for attempt_id, wanted in (("job_1:1", other), ("job_2:1", asked)):
        await pool.lease(attempt_id, generation=wanted)
        assert (await pool.submit(attempt_id, wanted)).state == pb.ATTEMPT_STATE_UNKNOWN
    assert (await pool.resolved("job_2:1")).state == pb.ATTEMPT_STATE_RUNNING
    orders = [json.loads(path.read_text()) for path in pool.folder.glob("sandbox/orders/*/*.json")]
    listed = (await pool.stub.ListAttempts(pb.ListAttemptsRequest(job_id="job_2"))).attempts
    assert len(orders) == 2
    assert listed[0].state == pb.ATTEMPT_STATE_RUNNING
    assert (await pool.resolved("job_1:1")).state == pb.ATTEMPT_STATE_RUNNING


async def endless() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n" + png()
    while True:
        yield bytes(16_384)


INVALID, UNAVAILABLE = pb.FAILURE_REASON_INVALID_REFERENCE, pb.FAILURE_REASON_REFERENCE_UNAVAILABLE
ODD: dict[str, tuple[Scene, pb.FailureReason.ValueType]] = {
    "not-there": (answer(b"", status="404 Not Found"), UNAVAILABLE),
    "body-cut-short": (answer(png())[:-20], UNAVAILABLE),
    "compressed": (answer(png(), more="Content-Encoding: gzip\r\n"), UNAVAILABLE),
    "image-cut-short": (answer(png()[:-20]), INVALID),
    "text": (answer(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), INVALID),
    "format-not-taken": (answer(b"GIF89a" + bytes(200)), INVALID),
    "nothing": (answer(b""), INVALID),
    "too-long": (answer(png() + bytes(100_000)), INVALID),
    "endless": (endless, INVALID),
}


async def test_what_cannot_be_used_fails_the_job_with_its_reason(pool: Pool, server: EvilServer) -> None:
    found = {}
    for turn, (name, (scene, _)) in enumerate(ODD.items()):
        wanted = following(at(server, f"/{name}", scene), image_bytes=50_000)
        failure = await prepared(pool, wanted, f"job_{turn}:1")
        assert failure is not None
        assert failure.next_step == pb.NEXT_STEP_FAIL
        assert failure.charged == pb.CHARGED_NO
        found[name] = failure.reason
    assert found == {name: reason for name, (_, reason) in ODD.items()}
    assert [path for path in pool.folder.glob("references/**/*") if path.is_file()] == []


async def test_an_address_that_is_not_allowed_is_never_dialled(pool: Pool, server: EvilServer) -> None:
    async with Canary("127.0.0.3", await free_port("127.0.0.3")) as canary:
        hidden = f"https://127.0.0.3:{canary.port}/"
        urls = (
            hidden,
            f"https://127.0.0.1:{canary.port}/",
            at(server, "/go", answer(b"", status="302 Found", more=f"Location: {hidden}\r\n")),
        )
        for turn, url in enumerate(urls):
            failure = await prepared(pool, following(url), f"job_{turn}:1")
            assert failure is not None
            assert failure.reason == UNAVAILABLE
        assert canary.connections == 0


async def test_a_killed_pool_leaves_nothing_half_and_begins_again(
    tmp_path: Path, server: EvilServer, allowed: dict[str, str]
) -> None:
    content = answer(png())

    async def halting() -> AsyncIterator[bytes]:
        yield content[:-10]
        await asyncio.sleep(60)

    wanted = following(at(server, "/halting", halting))
    async with running(tmp_path, **allowed) as pool:
        await pool.account()
        await pool.lease("job_1:1", generation=wanted)
        call = asyncio.create_task(pool.prepare("job_1:1", wanted))
        async with asyncio.timeout(10):
            while not server.heads:
                await asyncio.sleep(0.02)
        await pool.kill()
        with pytest.raises(ServiceError):
            await call
        assert pool.references() == []
    at(server, "/halting", content)
    async with running(tmp_path, **allowed) as pool:
        assert await pool.prepare("job_1:1", wanted) is None
        assert pool.references() == ["job_1-0"]
        assert (await pool.submit("job_1:1", wanted)).state == pb.ATTEMPT_STATE_RUNNING


async def test_a_restarted_pool_finds_what_was_ready(
    tmp_path: Path, server: EvilServer, allowed: dict[str, str]
) -> None:
    wanted = following(at(server))
    async with running(tmp_path, **allowed) as pool:
        await pool.account()
        assert await prepared(pool, wanted) is None
        assert await pool.stop() == 0
    async with running(tmp_path, **allowed) as pool:
        assert await pool.prepare("job_1:1", wanted) is None
    assert server.paths() == ["/cat.png"]


async def test_replicas_share_what_was_staged_and_fetched(
    tmp_path: Path, postgres_url: str, server: EvilServer, allowed: dict[str, str]
) -> None:
    changes = allowed | {"ATELIER_POOL_DATABASE_URL": postgres_url}
    async with running(tmp_path, **changes) as one, running(tmp_path, **changes) as other:
        await one.account()
        staged = await one.stage(png())
        wanted = following(at(server), staged.reference_id)
        assert await prepared(one, wanted) is None
        assert await other.prepare("job_1:1", wanted) is None
        assert server.paths() == ["/cat.png"]
        assert (await other.submit("job_1:1", wanted)).state == pb.ATTEMPT_STATE_RUNNING
        await other.drop("job_1", staged.reference_id)
        assert one.references() == []


async def test_the_stream_prepares_and_drops_like_the_unary_calls(pool: Pool, server: EvilServer) -> None:
    stream = Coalescer(
        pool.stub.Dispatch,
        batch=pb.DispatchRequest,
        item=pb.DispatchItem,
        unary=unary_of(pool.stub),
        name="provider_pool",
    )
    wanted = following(at(server))
    await pool.lease("job_1:1", generation=wanted)
    try:
        request = pb.PrepareReferencesRequest(attempt_id="job_1:1", job_id="job_1", generation=wanted)
        ready = await stream.call("PrepareReferences", request, pb.PrepareReferencesResponse, timeout_s=20)
        assert not ready.HasField("failure")
        assert pool.references() == ["job_1-0"]
        drop = pb.DropReferencesRequest(job_id="job_1")
        await stream.call("DropReferences", drop, pb.DropReferencesResponse, timeout_s=10)
        assert pool.references() == []
    finally:
        await stream.close()


async def test_the_path_and_query_of_a_url_are_told_to_nobody(
    pool: Pool, server: EvilServer, credentials: Credentials
) -> None:
    good = at(server, f"/cat.png?key={SECRET}", answer(png()))
    wanted = following(good)
    assert await prepared(pool, wanted) is None
    await pool.submit("job_1:1", wanted)
    await pool.ended("job_1:1")
    bad = at(server, f"/gone/{SECRET}", answer(b"", status="404 Not Found"))
    failure = await prepared(pool, following(bad), "job_2:1")
    assert failure is not None
    with pytest.raises(ServiceError) as refusal:
        await pool.lease("job_3:1", generation=following(f"{good}{'x' * 2_048}"))
    await asyncio.sleep(0.5)  # lines are gathered for a moment
    told = await pool.metrics() + pool.log + failure.detail + str(refusal.value) + str(refusal.value.metadata)
    assert "reference.fetched" in told
    assert SECRET not in told
    kept = [path for path in pool.folder.rglob("*") if path.is_file() and path.name != "log"]
    assert [
        path.name for path in kept if SECRET.encode() in path.read_bytes() and "-wal" not in path.name
    ] == []


async def test_an_upload_that_is_not_taken_is_refused_by_its_rule(pool: Pool) -> None:
    for content, image_bytes, rule in (
        (b"<html>", 10_000, "unknown_format"),
        (b"GIF89a" + bytes(100), 10_000, "format_not_taken"),
        (png() + bytes(10_000), 1_000, "too_many_bytes"),
        (png()[:-20], 10_000, "truncated"),
        (b"", 10_000, "empty"),
    ):
        limits = pb.ReferenceLimits(image_formats=["png"], image_bytes=image_bytes, images=1)
        with pytest.raises(ServiceError) as refusal:
            await pool.stage(content, limits=limits)
        assert refusal.value.kind is Kind.INVALID_ARGUMENT
        assert (refusal.value.reason, refusal.value.metadata["rule"]) == ("REFERENCE_REFUSED", rule)
    assert [path for path in pool.folder.glob("references/**/*") if path.is_file()] == []


async def test_an_upload_whose_sender_goes_away_leaves_nothing(pool: Pool) -> None:
    async def going() -> AsyncIterator[pb.StageReferenceRequest]:
        head = pb.StageReferenceRequest.Head(limits=LIMITS, model="gpt-image-2")
        yield pb.StageReferenceRequest(head=head)
        yield pb.StageReferenceRequest(content=png()[:50])
        await asyncio.sleep(60)

    call = pool.stub.StageReference(going())
    uploading = pool.folder / "references" / ".incoming"
    await asyncio.sleep(0.5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(10):
        while 'reference_uploads_total{outcome="broken"} 1.0' not in await pool.metrics():
            await asyncio.sleep(0.05)
    assert list(uploading.glob("*")) == []


async def test_what_is_out_of_range_is_refused_at_the_door(pool: Pool, server: EvilServer) -> None:
    two = following(at(server), at(server), images=1)
    content = pb.StageReferenceRequest(content=png())
    for call, field in (
        (pool.lease("job_1:1", generation=two), "generation.references"),
        (pool.prepare("job_1:1", two), "generation.references"),
        (pool.submit("job_1:1", two), "generation.references"),
        (pool.stub.StageReference(iter([content])), "head"),
        (pool.stub.StageReference(iter([])), "head"),
        (pool.drop("../job_1"), "job_id"),
        (pool.drop("job_1", "job_1-0"), "reference_ids"),
    ):
        with pytest.raises(ServiceError) as refusal:
            await call
        assert (refusal.value.reason, refusal.value.metadata["field"]) == ("INVALID_REQUEST", field)


async def test_a_pool_says_at_start_what_is_wrong_with_its_certificates(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(AssertionError, match="ATELIER_EGRESS_CA_FILE"):
        async with running(tmp_path, ATELIER_EGRESS_CA_FILE=str(tmp_path / "ca.pem")):
            pass


async def test_a_job_without_references_touches_nothing_of_them(pool: Pool) -> None:
    await pool.lease("job_1:1")
    assert await pool.prepare("job_1:1", picture()) is None
    assert (await pool.submit("job_1:1", picture())).state == pb.ATTEMPT_STATE_RUNNING
    metrics = await pool.metrics()
    assert "atelier_pool_reference_fetches_total{" not in metrics
    assert json.loads(pool.log.splitlines()[0])
