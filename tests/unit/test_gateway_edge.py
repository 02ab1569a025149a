"""The parts of the edge that need no backend: claims, settings, the access log."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from services.chassis.clock import SystemClock
from services.chassis.egress_policy import EgressPolicy, allowed_targets
from services.chassis.errors import ServiceError
from services.chassis.settings import Secret, SettingsError, load
from services.gateway import app
from services.gateway.access_log import AccessLog
from services.gateway.attempts import Attempts
from services.gateway.auth import Authenticator, Caller
from services.gateway.backends import Backends
from services.gateway.client_address import ClientAddresses, networks
from services.gateway.contract import Answer, Call, Contract, House, Route
from services.gateway.contracts.leonardo.routes import CONTRACT
from services.gateway.contracts.leonardo.wire import ErrorBody, ErrorDetail
from services.gateway.cors import Cors
from services.gateway.docs_site.site import DocsSite
from services.gateway.edge import Edge
from services.gateway.hints import Hints
from services.gateway.hosts import Hosts
from services.gateway.listener import Listener, bind, url_of
from services.gateway.media import MediaFiles, MediaLinks, SigningKeys
from services.gateway.price_lists import PriceLists
from services.gateway.rate_limits import RateLimits
from services.gateway.reference_media import ReferenceMedia
from services.gateway.settings import Settings
from services.gateway.webhook_forms import WebhookForms


def second_contract() -> Contract:
    """A contract that claims /v1/usage too, and spells errors in its own way."""

    def render(error: ServiceError, route: Route | None, request_id: str) -> Answer:
        statuses = {"API_KEY_MISSING": 401, "INVALID_API_KEY": 401, "NETWORK_NOT_ALLOWED": 401}
        status = (statuses | {"METHOD_NOT_ALLOWED": 405, "MALFORMED_REQUEST": 400}).get(error.reason, 404)
        detail = ErrorDetail(code="second", message=error.reason)
        return Answer(status, ErrorBody(ok=False, error=detail, request_id=request_id))

    usage = next(route for route in CONTRACT.routes if route.path == "/v1/usage")
    return replace(
        CONTRACT,
        name="second",
        paths=("/v1/usage", "/v1/jobs/second"),
        key_prefixes=("sk_",),
        routes=(
            replace(usage, handler=second_usage),
            replace(usage, name="bound", path="/v1/bound", handler=second_usage, bound=True),
        ),
        render_error=render,
    )


async def second_usage(call: Call) -> Answer:
    return Answer(200, ErrorDetail(code="usage", message=call.caller.customer_id))


async def identify(api_key: str, /) -> Caller:
    fences = {"sk_fenced": "203.0.113.0/24", "sk_inside": "127.0.0.0/8"}
    fenced = networks(fences.get(api_key, ""))
    return Caller("cus_2", "second", False, "key_2", 0, 1, 1, networks=fenced)


async def asked(
    tmp_path: Path, path: str, key: str = "", *, method: str = "GET", trusted: str = "", **headers: str
) -> tuple[int, str]:
    """The status and code of one request to a gateway with two contracts and no backends.

    The host second.example.com is the second contract's.
    """
    contracts = (CONTRACT, second_contract())
    hosts = Hosts(contracts, {"second.example.com": "second"})
    keys, clock = SigningKeys(Secret("k" * 40)), SystemClock()
    bound = bind("127.0.0.1:0", reuse_port=False)
    async with Backends("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1") as backends:
        edge = Edge(
            contracts,
            House(
                backends,
                MediaLinks(keys, url_of(bound), 1000, clock),
                ReferenceMedia(backends, EgressPolicy()),
                WebhookForms(backends.put_webhook_form),
                PriceLists(backends.price_list, clock),
                Attempts(clock),
                clock,
            ),
            Authenticator(identify, clock),
            RateLimits(),
            cors=Cors(()),
            hosts=hosts,
            client_addresses=ClientAddresses(networks(trusted)),
            access_log=None,
            requests_in_flight=10,
            inline_uploads=1,
        )
        files = MediaFiles(keys, tmp_path, clock)
        docs = DocsSite(contracts, url_of(bound), hosts)
        hints = Hints(backends.take_hint, ClientAddresses(()))
        served: web.Application = app.build(contracts, edge, files, docs, hints)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        async with (
            Listener(served, edge.contract_of, bound),
            aiohttp.ClientSession() as client,
            client.request(method, url_of(bound) + path, headers=headers) as response,
        ):
            if response.content_type != "application/json":
                return response.status, response.content_type
            body = await response.json()
            return response.status, body.get("code") or body["error"]["code"]


@pytest.mark.parametrize(
    "path,key,status,code",
    [
        ("/v1/usage", "sk_something", 200, "usage"),
        ("/v1/usage", "", 401, "invalid_api_key"),
        ("/v1/usage", "zz_nobody", 401, "invalid_api_key"),
        ("/v1/jobs/second/more", "", 404, "second"),
        ("/v1/jobs", "", 404, "not_found"),
        ("/elsewhere", "", 404, "not_found"),
    ],
)
async def test_a_key_s_prefix_decides_between_two_claims_and_a_path_s_prefix_who_spells_errors(
    tmp_path: Path, path: str, key: str, status: int, code: str
) -> None:
    assert await asked(tmp_path, path, key) == (status, code)


@pytest.mark.parametrize(
    "path,status,code",
    [
        ("/v1/usage", 401, "second"),
        ("/v1/images/generate", 404, "second"),
        ("/media/nothing", 404, "second"),
        ("/elsewhere", 404, "second"),
        ("/", 200, "text/html"),
        ("/docs", 200, "text/html"),
        ("/docs/second", 200, "text/html"),
        ("/openapi/leonardo.json", 404, "second"),
    ],
)
@pytest.mark.parametrize("host", ["second.example.com", "SECOND.example.com.:8443"])
async def test_a_bound_host_serves_its_contract_alone(
    tmp_path: Path, host: str, path: str, status: int, code: str
) -> None:
    assert await asked(tmp_path, path, Host=host) == (status, code)


async def test_a_path_of_bound_hosts_exists_on_them_only(tmp_path: Path) -> None:
    assert await asked(tmp_path, "/v1/bound", "sk_something") == (404, "not_found")
    assert await asked(tmp_path, "/v1/bound", "sk_something", Host="second.example.com") == (200, "usage")


@pytest.mark.parametrize(
    "host,method,path,key,answer",
    [
        # Two claim it, and the key says who is spoken to.
        ("", "POST", "/v1/usage", "sk_something", (405, "second")),
        ("", "POST", "/v1/usage", "", (405, "method_not_allowed")),
        ("", "GET", "/v1/usage/more", "sk_something", (404, "second")),
        # A path that is not served here is not there for any method.
        ("", "POST", "/v1/bound", "", (404, "not_found")),
        ("second.example.com", "POST", "/v1/bound", "", (405, "second")),
        ("second.example.com", "DELETE", "/v1/images/generate", "", (404, "second")),
        ("second.example.com", "DELETE", "/v1/jobs/job_1", "", (404, "second")),
        ("", "DELETE", "/v1/jobs/job_1", "", (405, "method_not_allowed")),
        ("", "POST", "/docs", "", (405, "method_not_allowed")),
    ],
)
async def test_a_wrong_method_is_refused_in_the_words_of_who_is_spoken_to(
    tmp_path: Path, host: str, method: str, path: str, key: str, answer: tuple[int, str]
) -> None:
    headers = {"Host": host} if host else {}
    assert await asked(tmp_path, path, key, method=method, **headers) == answer


@pytest.mark.parametrize(
    "host,path,code", [("", "/v1/jobs/second/x", "second"), ("second.example.com", "/v1/usage", "second")]
)
async def test_an_expectation_that_nobody_knows_is_refused_in_the_contract_s_words(
    tmp_path: Path, host: str, path: str, code: str
) -> None:
    headers = {"Host": host} if host else {}
    assert await asked(tmp_path, path, Expect="teapot", **headers) == (400, code)


def test_a_host_of_a_storefront_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="third"):
        Hosts((CONTRACT,), {"api.example.com": "third"})


@pytest.mark.parametrize(
    "trusted,forwarded,status",
    [
        ("", "", 401),
        ("", "203.0.113.7", 401),
        ("127.0.0.0/8", "203.0.113.7", 200),
        ("127.0.0.0/8", "203.0.113.7, 198.51.100.1", 401),
        ("127.0.0.0/8,198.51.100.0/24", "203.0.113.7, 198.51.100.1", 200),
        ("127.0.0.0/8", "203.0.113.7, nonsense", 401),
        ("127.0.0.0/8", "::ffff:203.0.113.7", 200),
        ("::ffff:127.0.0.0/104", "203.0.113.7", 200),
        # As some proxies write it.
        ("127.0.0.0/8", "203.0.113.7:49152", 200),
        ("127.0.0.0/8", "[::ffff:203.0.113.7]:49152", 200),
        ("127.0.0.0/8", "[::ffff:203.0.113.7]", 200),
        ("127.0.0.0/8", "203.0.113.7:443:443", 401),
        ("127.0.0.0/8", "203.0.113.7,,", 200),
    ],
)
async def test_a_key_of_some_networks_works_from_there_alone_and_only_trusted_proxies_say_where_that_is(
    tmp_path: Path, trusted: str, forwarded: str, status: int
) -> None:
    sent = {"X-Forwarded-For": forwarded} if forwarded else {}
    assert (await asked(tmp_path, "/v1/usage", "sk_fenced", trusted=trusted, **sent))[0] == status


@pytest.mark.parametrize(
    "forwarded,status",
    [
        ("", 200),
        ("127.0.0.9", 200),
        ("203.0.113.7", 401),
        ("unknown", 401),
        ("203.0.113.7, 127.0.0.9, _p", 401),
    ],
)
async def test_a_client_of_whom_the_proxy_says_nothing_that_is_understood_is_not_taken_for_the_proxy(
    tmp_path: Path, forwarded: str, status: int
) -> None:
    sent = {"X-Forwarded-For": forwarded} if forwarded else {}
    answered = await asked(tmp_path, "/v1/usage", "sk_inside", trusted="127.0.0.0/8", **sent)
    assert answered[0] == status


def environment(tmp_path: Path, **changes: str) -> dict[str, str]:
    (tmp_path / "key").write_text("k" * 40)
    names = {
        "BILLING_ADDRESS": "127.0.0.1:1",
        "JOBS_ADDRESS": "127.0.0.1:2",
        "POOL_ADDRESS": "127.0.0.1:3",
        "MEDIA_FOLDER": str(tmp_path),
        "MEDIA_SIGNING_KEY_FILE": str(tmp_path / "key"),
        **changes,
    }
    return {f"ATELIER_GATEWAY_{name}": value for name, value in names.items()}


def test_settings_have_the_documented_defaults(tmp_path: Path) -> None:
    settings = load(Settings, environment(tmp_path))
    assert (settings.listen, settings.media_link_hours, settings.requests_in_flight) == (
        "127.0.0.1:8080",
        24.0,
        2000,
    )
    assert (settings.public_url, settings.cors_origins) == ("", ())
    assert (settings.inline_uploads, settings.policy()) == (8, EgressPolicy())
    assert "k" * 40 not in repr(settings)


def test_everything_wrong_with_the_settings_is_said_at_once(tmp_path: Path) -> None:
    wrong = {
        "MEDIA_FOLDER": str(tmp_path / "none"),
        "PUBLIC_URL": "api.example.com",
        "CORS_ORIGINS": "nonsense",
        "LISTEN": "8080",
        "REQUESTS_IN_FLIGHT": "0",
        "INLINE_UPLOADS": "many",
    }
    with pytest.raises(SettingsError) as refusal:
        load(Settings, {**environment(tmp_path, **wrong), "ATELIER_EGRESS_ALLOW": "10.0.0.0"})
    assert "ATELIER_EGRESS_ALLOW " in str(refusal.value)
    assert all(f"ATELIER_GATEWAY_{name} " in str(refusal.value) for name in wrong)


def test_media_are_in_a_folder_or_in_a_bucket_and_somewhere(tmp_path: Path) -> None:
    bucket = {
        "MEDIA_FOLDER": "",
        "MEDIA_S3_ENDPOINT": "https://s3.example.com/",
        "MEDIA_S3_BUCKET": "films",
        "MEDIA_S3_ACCESS_KEY": "atelier",
        "MEDIA_S3_SECRET_KEY_FILE": str(tmp_path / "key"),
    }
    settings = load(Settings, environment(tmp_path, **bucket))
    place = settings.media_place()
    assert place is not None
    assert place.address("a.mp4", "") == "https://s3.example.com/films/a.mp4"
    assert "k" * 40 not in repr(settings) + repr(place)
    assert load(Settings, environment(tmp_path)).media_place() is None
    for missing in ({"MEDIA_S3_ENDPOINT": ""}, {"MEDIA_S3_BUCKET": ""}, {"MEDIA_S3_SECRET_KEY_FILE": ""}):
        with pytest.raises(SettingsError, match="ATELIER_GATEWAY_MEDIA_"):
            load(Settings, environment(tmp_path, **bucket | missing))


@pytest.mark.parametrize(
    "text,origins",
    [
        ("*", ("*",)),
        ("https://a.example, http://b.example:8080/", ("https://a.example", "http://b.example:8080")),
    ],
)
def test_origins_are_read(tmp_path: Path, text: str, origins: tuple[str, ...]) -> None:
    assert load(Settings, environment(tmp_path, CORS_ORIGINS=text)).cors_origins == origins


def test_what_the_operator_allows_is_the_policy_for_references(tmp_path: Path) -> None:
    egress = {"ATELIER_EGRESS_ALLOW": "127.0.0.1/32:8443", "ATELIER_EGRESS_PORTS": "8443"}
    policy = load(Settings, environment(tmp_path) | egress).policy()
    assert (policy.allow, policy.ports) == (allowed_targets("127.0.0.1/32:8443"), frozenset({443, 8443}))


async def test_access_lines_are_json_and_written_together() -> None:
    written: list[bytes] = []
    log = AccessLog(written.append)
    for number in range(3):
        log.add(
            request_id=f'r"{number}',
            method="GET",
            route="getJob",
            status=200 + 300 * (number == 2),
            duration_s=0.0015,
        )
    assert written == []
    await asyncio.sleep(0.3)
    assert len(written) == 1
    lines = [json.loads(line) for line in written[0].splitlines()]
    assert [line["request_id"] for line in lines] == ['r"0', 'r"1', 'r"2']
    assert [line["level"] for line in lines] == ["info", "info", "warning"]
    assert lines[0]["duration_ms"] == 1.5


async def test_a_burst_of_lines_is_written_before_it_grows_large() -> None:
    written: list[bytes] = []
    log = AccessLog(written.append)
    for _ in range(1000):
        log.add(request_id="r", method="GET", route="getJob", status=200, duration_s=0.001)
    assert written
    assert max(map(len, written)) < 65_536
    log.flush()
    assert sum(block.count(b"\n") for block in written) == 1000
