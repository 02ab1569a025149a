from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.chassis import call_context, metrics
from services.chassis.call_context import CallContext
from services.chassis.errors import Kind, ServiceError
from services.chassis.rpc_server import RpcServer, is_local
from services.gen.billing.v1 import billing_pb2 as pb
from tests.unit.toy_service import REFUSAL, SERVICE, Toy, serving, stub_of

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def failure(call: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value


async def test_an_error_is_raised_equal_to_the_handlers() -> None:
    async with serving(Toy()) as server, stub_of(server.address) as stub:
        assert await failure(stub.Hold(pb.HoldRequest(job_id="refuse"))) == REFUSAL


async def test_a_bug_shows_internal_error_and_logs_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Toy()) as server, stub_of(server.address) as stub:
        error = await failure(stub.Hold(pb.HoldRequest(job_id="bug")))
    assert error == ServiceError(Kind.INTERNAL, "INTERNAL", "internal error")
    assert "the secret name of a host" in caplog.text


async def test_a_late_answer_is_deadline_exceeded_and_the_handler_is_cancelled() -> None:
    toy = Toy()
    async with serving(toy) as server, stub_of(server.address) as stub:
        error = await failure(stub.Hold(pb.HoldRequest(job_id="hang"), timeout=0.1))
        await asyncio.sleep(0.1)
    assert (error.kind, error.reason) == (Kind.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert toy.cancelled == ["hang"]


async def test_a_cancelled_caller_cancels_the_handler() -> None:
    toy = Toy()
    async with serving(toy) as server, stub_of(server.address) as stub:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stub.Hold(pb.HoldRequest(job_id="hang")), 0.2)
        await asyncio.sleep(0.1)
        assert toy.cancelled == ["hang"]


async def test_an_unreachable_server_is_unavailable_and_its_address_is_not_shown() -> None:
    async with serving(Toy()) as server:
        address = server.address
    async with stub_of(address) as stub:
        error = await failure(stub.Hold(pb.HoldRequest(job_id="x")))
    assert (error.kind, error.reason) == (Kind.UNAVAILABLE, "UNAVAILABLE")
    assert "127.0.0.1" not in str(error)


async def test_an_unknown_method_is_unimplemented() -> None:
    async with serving(Toy()) as server, stub_of(server.address) as stub:
        assert (await failure(stub.Release(pb.ReleaseRequest()))).kind is Kind.UNIMPLEMENTED


async def test_request_id_trace_fence_and_shaved_deadline_reach_the_handler() -> None:
    async with serving(Toy()) as server, stub_of(server.address) as stub:
        with call_context.entered(CallContext("req_abc", time.monotonic() + 20.0, TRACE, fence=7)):
            answer = await stub.Hold(pb.HoldRequest(job_id="context"), timeout=30)
    assert answer.price_version == f"req_abc|{TRACE}|7"
    # What the context has left, and not the call's own half minute; the machine may be slow besides.
    assert 1000 < answer.amount_millis <= 20_000


async def test_hostile_context_metadata_is_replaced() -> None:
    async with serving(Toy()) as server, stub_of(server.address) as stub:
        hostile = (("x-request-id", "a b"), ("traceparent", "nonsense"), ("x-fence", "-1"))
        answer = await stub.Hold(pb.HoldRequest(job_id="context"), metadata=hostile)
    request_id, trace, fence = answer.price_version.split("|")
    assert request_id.startswith("req_")
    assert (trace, fence) == ("", "0")


async def test_bytes_that_are_no_request_fail_that_call_only() -> None:
    async with serving(Toy()) as server, grpc.aio.insecure_channel(server.address) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/Hold")
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"\xff\xff\xff")
        answer = await call(pb.HoldRequest(quantity=3).SerializeToString())
        assert pb.HoldResponse.FromString(answer).amount_millis == 3


async def test_repeatable_calls_survive_a_restart_of_the_server() -> None:
    server = serving(Toy())
    async with server:
        address = server.address
        async with stub_of(address, repeatable=[f"{SERVICE}/Hold"]) as stub:
            await stub.Hold(pb.HoldRequest(quantity=1))
            await server.drain()
            waiting = asyncio.ensure_future(stub.Hold(pb.HoldRequest(quantity=2), timeout=10))
            await asyncio.sleep(0.3)
            async with serving(Toy(), address):
                assert (await waiting).amount_millis == 2


async def test_a_draining_server_finishes_what_is_under_way() -> None:
    async with serving(Toy()) as server, stub_of(server.address) as stub:
        slow = asyncio.ensure_future(stub.Hold(pb.HoldRequest(job_id="sleep", quantity=300)))
        await asyncio.sleep(0.1)
        await server.drain()
        assert (await slow).amount_millis == 300


async def test_a_draining_server_cancels_what_outlasts_the_grace() -> None:
    async with serving(Toy(), grace_s=0.1) as server, stub_of(server.address) as stub:
        hanging = asyncio.ensure_future(stub.Hold(pb.HoldRequest(job_id="hang")))
        await asyncio.sleep(0.1)
        await server.drain()
        assert (await failure(hanging)).kind in {Kind.UNAVAILABLE, Kind.CANCELLED}


async def test_a_server_that_leaves_refuses_what_is_new_and_ends_what_is_under_way_until_it_drains() -> None:
    async with serving(Toy(), grace_s=0.1) as server, stub_of(server.address) as stub:
        slow = asyncio.ensure_future(stub.Hold(pb.HoldRequest(job_id="sleep", quantity=500)))
        hanging = asyncio.ensure_future(stub.Hold(pb.HoldRequest(job_id="hang")))
        await asyncio.sleep(0.1)
        await server.leave()
        assert not slow.done()
        assert (await failure(stub.Hold(pb.HoldRequest(quantity=1)))).kind is Kind.UNAVAILABLE
        assert (await slow).amount_millis == 500
        await server.drain()
        assert (await failure(hanging)).kind in {Kind.UNAVAILABLE, Kind.CANCELLED}


async def test_health_is_serving_and_turns_not_serving_when_draining() -> None:
    async with serving(Toy()) as server, grpc.aio.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        drain = asyncio.ensure_future(server.drain())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await drain


async def test_streams_of_events_end_as_unavailable_when_draining() -> None:
    async with serving(Toy()) as server, grpc.aio.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        await anext(aiter(watch))
        started_s = time.monotonic()
        await server.drain()
        assert time.monotonic() - started_s < 2.0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [answer async for answer in watch]
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_loopback_server_can_be_reflected() -> None:
    async with serving(Toy()) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        answers = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        names = {
            service.name async for answer in answers for service in answer.list_services_response.service
        }
    assert SERVICE in names


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "10.1.2.3:0", "example.com:0", ":0", "50051", ""])
async def test_plaintext_is_refused_off_loopback(listen: str) -> None:
    with pytest.raises(ServiceError) as caught:
        async with RpcServer(listen, [], []):
            pass
    assert (caught.value.kind, caught.value.reason) == (Kind.FAILED_PRECONDITION, "PLAINTEXT_REFUSED")


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/tmp/x", "127.8.8.8:1"])
def test_addresses_of_this_machine_are_local(listen: str) -> None:
    assert is_local(listen)


async def test_a_taken_port_is_an_error() -> None:
    async with serving(Toy()) as server:
        with pytest.raises(ServiceError) as caught:
            async with serving(Toy(), server.address):
                pass
    assert caught.value.reason == "ADDRESS_UNAVAILABLE"
    assert server.address in caught.value.message


async def test_a_unix_socket_can_be_served(tmp_path: Any) -> None:
    async with serving(Toy(), f"unix:{tmp_path}/rpc.sock") as server, stub_of(server.address) as stub:
        assert (await stub.Hold(pb.HoldRequest(quantity=4))).amount_millis == 4


async def test_more_calls_at_once_than_the_server_takes_are_refused() -> None:
    async with serving(Toy(), maximum_concurrent_rpcs=2) as server, stub_of(server.address) as stub:
        calls = [stub.Hold(pb.HoldRequest(job_id="sleep", quantity=200)) for _ in range(6)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [answer.kind for answer in answers if isinstance(answer, ServiceError)]
    assert 4 <= len(refused) <= 5
    assert set(refused) == {Kind.RESOURCE_EXHAUSTED}


async def test_every_call_is_counted_by_method_and_outcome() -> None:
    async with serving(Toy()) as server, stub_of(server.address) as stub:
        before = _count("FAILED_PRECONDITION")
        await failure(stub.Hold(pb.HoldRequest(job_id="refuse")))
        assert _count("FAILED_PRECONDITION") == before + 1


def _count(code: str) -> float:
    line = f'atelier_rpc_server_requests_total{{code="{code}",method="Hold"}} '
    found = [text for text in metrics.exposition().decode().splitlines() if text.startswith(line)]
    return float(found[0].removeprefix(line)) if found else 0.0


async def test_refusals_are_not_logged_as_failures(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Toy()) as server, stub_of(server.address) as stub:
        with caplog.at_level(logging.WARNING):
            await failure(stub.Hold(pb.HoldRequest(job_id="refuse")))
    assert not [record for record in caplog.records if record.name.startswith("services.")]


def _authority() -> tuple[bytes, bytes]:
    """A self-signed certificate for localhost, which serves as its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), private


async def test_with_mutual_tls_only_a_client_with_a_certificate_is_served() -> None:
    certificate, key = _authority()
    server_side = grpc.ssl_server_credentials([(key, certificate)], certificate, require_client_auth=True)
    known = grpc.ssl_channel_credentials(certificate, key, certificate)
    stranger = grpc.ssl_channel_credentials(certificate)
    async with serving(Toy(), credentials=server_side) as server:
        address = server.address.replace("127.0.0.1", "localhost")
        async with stub_of(address, credentials=known) as stub:
            assert (await stub.Hold(pb.HoldRequest(quantity=5))).amount_millis == 5
        async with stub_of(address, credentials=stranger) as stub:
            assert (await failure(stub.Hold(pb.HoldRequest()))).kind is Kind.UNAVAILABLE
        async with stub_of(address) as stub:
            assert (await failure(stub.Hold(pb.HoldRequest()))).kind is Kind.UNAVAILABLE
