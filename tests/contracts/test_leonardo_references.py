"""Reference images on `leonardo`: what is taken, what is refused at once, what repeats are, what is let go of."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from typing import Any

import pytest

from services.chassis.egress_policy import allowed_targets
from services.chassis.errors import Kind, ServiceError
from services.gateway.contract import CREATE_DEADLINE_S
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from tests.contracts.conftest import Opening, Storefront
from tests.contracts.leonardo import IMAGES, VIDEOS, refused
from tests.fakes import eventually

URL = "https://example.com/reference.png"
PICTURE = bytes(range(256)) * 3
BASE64 = base64.b64encode(PICTURE).decode()
LARGE = bytes(range(251)) * 20_000  # 5 MB
LARGE_BASE64 = base64.b64encode(LARGE).decode()
LIMITS: dict[str, Any] = {
    "image_formats": ["jpeg", "png", "webp"],
    "image_bytes": 20 * 1024 * 1024,
    "images": 1,
}


def asking(reference: Any) -> dict[str, Any]:
    return {"prompt": "a", "referenceImage": reference}


def sent(shop: Storefront) -> jobs.Reference:
    """The one reference of the one job that was asked for."""
    assert len(shop.jobs.created) == 1
    (reference,) = shop.jobs.created[0].generation.references
    return reference


def refusal(kind: Kind, reason: str, **metadata: str) -> ServiceError:
    return ServiceError(kind, reason, "words of another service", metadata)


# ---- taking -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [IMAGES, VIDEOS])
@pytest.mark.parametrize("reference", [URL, {"imageUrl": URL}])
async def test_a_url_goes_to_the_job_as_it_is(shop: Storefront, path: str, reference: Any) -> None:
    assert (await shop.post(path, asking(reference))).status == 202
    assert sent(shop) == jobs.Reference(
        role=jobs.Reference.ROLE_IMAGE, strength=jobs.Reference.STRENGTH_MID, url=URL
    )
    assert shop.jobs.created[0].generation.reference_limits == jobs.ReferenceLimits(**LIMITS)
    assert shop.pool.staged == {}


@pytest.mark.parametrize("path", [IMAGES, VIDEOS])
@pytest.mark.parametrize(
    "prefix", ["", "data:image/png;base64,", "DATA:;charset=utf-8;BASE64,", "data:;base64,"]
)
@pytest.mark.parametrize("content,text", [(PICTURE, BASE64), (LARGE, LARGE_BASE64)])
async def test_an_inline_image_goes_to_the_pool_and_its_id_to_the_job(
    shop: Storefront, path: str, prefix: str, content: bytes, text: str
) -> None:
    assert (await shop.post(path, asking({"imageUrl": prefix + text}))).status == 202
    reference = sent(shop)
    assert shop.pool.staged == {reference.reference_id: content}
    assert shop.pool.heads == [
        pool.StageReferenceRequest.Head(
            limits=pool.ReferenceLimits(**LIMITS), model=shop.jobs.created[0].generation.model
        )
    ]
    assert shop.pool.largest_piece_bytes <= 256 * 1024
    assert shop.pool.dropped == []


@pytest.mark.parametrize(
    "word,strength",
    [
        ("LOW", jobs.Reference.STRENGTH_LOW),
        ("MID", jobs.Reference.STRENGTH_MID),
        ("HIGH", jobs.Reference.STRENGTH_HIGH),
    ],
)
async def test_strength_says_how_closely(
    shop: Storefront, word: str, strength: jobs.Reference.Strength.ValueType
) -> None:
    await shop.post(IMAGES, asking({"imageUrl": URL, "strength": word}))
    assert sent(shop).strength == strength


@pytest.mark.parametrize("text", [BASE64, LARGE_BASE64, "data:image/png;base64," + LARGE_BASE64])
async def test_escapes_of_other_clients_mean_what_they_say(shop: Storefront, text: str) -> None:
    content = base64.b64decode(text.rpartition(",")[2])
    php = json.dumps(asking(text)).replace("/", "\\/")
    dotnet = php.replace("\\/", "\\u002F").replace("+", "\\u002B").replace("=", "\\u003d")
    for body in (php, dotnet):
        assert (await shop.post(VIDEOS, body.encode())).status == 202
    assert list(shop.pool.staged.values()) == [content, content]


async def test_a_job_without_a_reference_asks_the_pool_nothing(shop: Storefront) -> None:
    await shop.post(IMAGES, {"prompt": "a"})
    assert not shop.jobs.created[0].generation.HasField("reference_limits")
    assert (shop.pool.heads, shop.pool.dropped) == ([], [])


async def test_the_operator_can_allow_targets(opening: Opening) -> None:
    shop = await opening(egress_allow=allowed_targets("127.0.0.1/32:8000"))
    assert (await shop.post(IMAGES, asking("http://127.0.0.1:8000/a.png"))).status == 202
    refused(await shop.post(IMAGES, asking("http://127.0.0.1:8001/a.png")), 400, "invalid_reference_image")


# ---- refusing -----------------------------------------------------------------------------------------------

NEITHER = (
    "The reference image is neither an HTTPS URL nor valid base64 "
    "(the standard alphabet, with padding, without white space)."
)
NOT_PUBLIC = "The reference image must name a public host."
MALFORMED = "The reference image is a URL whose host or characters are not in their plain form."
HTTPS = "The reference image must be a URL that begins with https://."
DATA_FORM = "The reference image is a data URL that is not of the form data:image/…;base64,…."


@pytest.mark.parametrize(
    "text,message",
    [
        ("", NEITHER),
        ("x", NEITHER),
        ("example.com/a.png", NEITHER),
        ("//example.com/a.png", NEITHER),
        ("QUJD QUJD", NEITHER),
        ("QUJD\n", NEITHER),
        ("QUJDQQ", NEITHER),
        ("QUJDQQ=", NEITHER),
        ("QUJDQQ===", NEITHER),
        ("QUJD====", NEITHER),
        ("QQ==QUJD", NEITHER),
        ("QUJDQR==", NEITHER),
        ("QU-_", NEITHER),
        ("QÜJD", NEITHER),
        ("====", NEITHER),
        ("http://example.com/a.png", HTTPS),
        ("ftp://example.com/a.png", HTTPS),
        ("file:///etc/passwd", HTTPS),
        ("javascript:alert(1)", HTTPS),
        ("blob:https://example.com/1", HTTPS),
        ("sha256:" + "0" * 64, HTTPS),
        ("https://127.0.0.1/a.png", NOT_PUBLIC),
        ("https://169.254.169.254/latest/meta-data/", NOT_PUBLIC),
        ("https://[::1]/a.png", NOT_PUBLIC),
        ("https://[::ffff:10.0.0.1]/a.png", NOT_PUBLIC),
        ("https://localhost/a.png", NOT_PUBLIC),
        ("https://router/a.png", NOT_PUBLIC),
        ("https://db.internal/a.png", NOT_PUBLIC),
        ("https://user@example.com/", "The reference image must be a URL without a user name or an @ in front of the path."),
        ("https://example.com:8443/a.png", "The reference image must be on the standard port for HTTPS."),
        ("https://0x7f.1/a.png", MALFORMED),
        ("https://exa mple.com/a.png", MALFORMED),
        ("https:example.com/a.png", MALFORMED),
        ("https://example.com/" + "a" * 2048, "The reference image must be a URL of at most 2,048 characters."),
        ("https://example.com/" + "a" * 2_000_000, "The reference image must be a URL of at most 2,048 characters."),
        ("data:image/png,abc", "The reference image is a data URL that is not in base64."),
        ("data:image/png;base64", DATA_FORM),
        ("data:image/png;name=a b;base64," + BASE64, DATA_FORM),
        ("data:text/html;base64," + BASE64, "The reference image is a data URL of something that is not an image."),
        ("data:imagex;base64," + BASE64, "The reference image is a data URL of something that is not an image."),
        ("data:image/png;base64,", NEITHER),
        ("data:image/png;base64," + BASE64 + "%3D", NEITHER),
        ("data:image/png;base64,data:image/png;base64," + BASE64, NEITHER),
        (LARGE_BASE64 + "A", NEITHER),
        (LARGE_BASE64[:-8] + "\u00e9" + LARGE_BASE64[-8:], NEITHER),
        ("\0lifted:" + "0" * 32 + ":0", NEITHER),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [IMAGES, VIDEOS])
async def test_what_cannot_be_a_reference_is_refused_at_once(
    shop: Storefront, path: str, text: str, message: str
) -> None:
    answer = await shop.post(path, asking({"imageUrl": text}))
    error = refused(answer, 400, "invalid_reference_image")
    assert (error["message"], error["field"]) == (message, "referenceImage")
    assert (shop.jobs.created, shop.pool.staged) == ([], {})


@pytest.mark.parametrize("more_bytes,status,staged", [(0, 202, 1), (1, 400, 0), (300_000, 400, 0)])
@pytest.mark.parametrize("escaped", [False, True])
async def test_an_image_may_have_20_mb(
    shop: Storefront, more_bytes: int, status: int, staged: int, escaped: bool
) -> None:
    text = base64.b64encode(bytes(20 * 1024 * 1024 + more_bytes))
    if escaped:
        text = b"\\u0041" + text[1:]
    answer = await shop.post(IMAGES, b'{"prompt": "a", "referenceImage": "%b"}' % text)
    assert (answer.status, len(shop.pool.staged)) == (status, staged)
    if status == 400:
        error = refused(answer, 400, "invalid_reference_image")
        assert error["message"] == "The reference image is larger than 20 MB."


async def test_a_body_beyond_28_mib_is_413_whatever_is_in_it(shop: Storefront) -> None:
    body = b'{"prompt": "a", "referenceImage": "' + b"A" * (28 * 1024 * 1024) + b'"}'
    refused(await shop.post(IMAGES, body), 413, "payload_too_large")


@pytest.mark.parametrize(
    "rule,message",
    [
        ("too_many_bytes", "The reference image is larger than 20 MB."),
        ("too_many_pixels", "The reference image has more than 50 megapixels."),
        ("side_too_long", "The reference image has a side of more than 16,384 pixels."),
        ("animated", "The reference image is animated; only still images are taken."),
        (
            "format_not_taken",
            "The reference image must be JPEG, PNG or WebP; its bytes decide, whatever type is declared.",
        ),
        ("unsuitable_size", "The reference image is not of a size in pixels that this model takes."),
        ("bad_checksum", "The reference image is damaged, or holds what is not taken."),
        ("", "The reference image is damaged, or holds what is not taken."),
    ],
)
async def test_what_the_pool_refuses_is_told_in_a_sentence_and_makes_no_job(
    shop: Storefront, rule: str, message: str
) -> None:
    shop.pool.refusal = refusal(Kind.INVALID_ARGUMENT, "REFERENCE_REFUSED", rule=rule)
    error = refused(await shop.post(IMAGES, asking(BASE64)), 400, "invalid_reference_image")
    assert error["message"] == message
    assert shop.jobs.created == []


async def test_a_pool_that_refuses_before_it_has_read_all_is_no_fault_of_ours(shop: Storefront) -> None:
    shop.pool.reads_all = False
    shop.pool.refusal = refusal(Kind.INVALID_ARGUMENT, "REFERENCE_REFUSED", rule="animated")
    for _ in range(10):
        # Which of the two depends on what reaches gRPC first: the refusal, or the failure of its own write.
        assert (await shop.post(IMAGES, asking(LARGE_BASE64))).status in {400, 503}
    shop.pool.refusal = None
    assert (await shop.post(IMAGES, asking(LARGE_BASE64))).status == 202


async def test_a_pool_that_does_not_answer_is_503_while_the_client_still_waits(
    shop: Storefront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.backends._STAGE_TIMEOUT_S", 0.2)
    shop.pool.answer_after_s = 5
    refused(await shop.post(IMAGES, asking(BASE64)), 503, "provider_unavailable")
    assert shop.jobs.created == []


async def test_no_image_is_staged_for_a_job_that_would_have_no_time_left(
    shop: Storefront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.backends._CREATE_S", CREATE_DEADLINE_S - 0.2)
    shop.pool.answer_after_s = 5
    began_s = time.monotonic()
    refused(await shop.post(IMAGES, asking(BASE64)), 503, "provider_unavailable")
    assert time.monotonic() - began_s < 4
    monkeypatch.setattr("services.gateway.backends._CREATE_S", CREATE_DEADLINE_S + 1)
    refused(await shop.post(IMAGES, asking(BASE64)), 503, "provider_unavailable")
    assert (shop.jobs.created, shop.pool.staged) == ([], {})


@pytest.mark.parametrize(
    "error",
    [
        refusal(Kind.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
        refusal(Kind.UNAVAILABLE, "UNAVAILABLE"),
        refusal(Kind.DEADLINE_EXCEEDED, "UPLOAD_TOO_SLOW"),
    ],
)
async def test_a_pool_that_cannot_take_an_image_now_is_503(shop: Storefront, error: ServiceError) -> None:
    shop.pool.refusal = error
    answer = await shop.post(IMAGES, asking(BASE64))
    refused(answer, 503, "provider_unavailable")
    assert answer.headers["Retry-After"]
    assert shop.jobs.created == []


async def test_without_a_pool_only_inline_images_are_refused(opening: Opening) -> None:
    shop = await opening(pool_listens=False)
    refused(await shop.post(IMAGES, asking(BASE64)), 503, "provider_unavailable")
    assert shop.jobs.created == []
    assert (await shop.post(IMAGES, asking(URL))).status == 202
    assert (await shop.post(IMAGES, {"prompt": "a"})).status == 202


async def test_a_pool_that_breaks_is_500_and_says_nothing(shop: Storefront) -> None:
    shop.pool.refusal = refusal(Kind.INTERNAL, "INTERNAL")
    error = refused(await shop.post(IMAGES, asking(BASE64)), 500, "internal_error")
    assert "words of another service" not in error["message"]


async def test_fields_come_first_then_the_key_then_the_image(shop: Storefront) -> None:
    wrong = {**asking("ftp://x"), "size": "huge"}
    refused(await shop.post(IMAGES, wrong), 400, "invalid_request")
    answer = await shop.raw(IMAGES, b"", json.dumps(asking("ftp://x")).encode())
    assert answer.code == "idempotency_key_required"
    refused(await shop.post(IMAGES, asking("ftp://x")), 400, "invalid_reference_image")


# ---- repeats ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first,again",
    [
        (URL, {"imageUrl": URL}),
        (URL, {"imageUrl": URL, "strength": "MID"}),
        (BASE64, "data:image/png;base64," + BASE64),
        ("data:image/png;base64," + BASE64, {"imageUrl": "data:;base64," + BASE64, "strength": "MID"}),
        (LARGE_BASE64, "data:image/webp;base64," + LARGE_BASE64),
    ],
)
async def test_the_same_image_in_another_form_is_the_same_request(
    shop: Storefront, first: Any, again: Any
) -> None:
    job = await shop.post(IMAGES, asking(first), key="k")
    repeated = await shop.post(IMAGES, asking(again), key="k")
    assert (repeated.status, repeated.body["idempotentReplay"]) == (202, True)
    assert repeated.body["jobId"] == job.body["jobId"]


@pytest.mark.parametrize(
    "first,again",
    [
        (URL, URL + "?2"),
        (URL, {"imageUrl": URL, "strength": "LOW"}),
        (URL, BASE64),
        (BASE64, base64.b64encode(PICTURE[:-1]).decode()),
        (LARGE_BASE64, base64.b64encode(LARGE[:-1] + b"\xff").decode()),
    ],
)
async def test_another_image_under_the_same_key_is_a_conflict(
    shop: Storefront, first: Any, again: Any
) -> None:
    await shop.post(IMAGES, asking(first), key="k")
    refused(await shop.post(IMAGES, asking(again), key="k"), 409, "idempotency_key_conflict")
    refused(await shop.post(IMAGES, {"prompt": "a"}, key="k"), 409, "idempotency_key_conflict")


async def test_the_fingerprint_holds_the_hash_and_not_the_image(shop: Storefront) -> None:
    await shop.post(IMAGES, asking(BASE64))
    wire = {
        "prompt": "a",
        "quality": "LOW",
        "referenceImage": {"imageUrl": f"sha256:{hashlib.sha256(PICTURE).hexdigest()}", "strength": "MID"},
        "size": "1:1_SMALL",
    }
    plain = IMAGES.encode() + b"\n" + json.dumps(wire, separators=(",", ":")).encode()
    assert shop.jobs.created[0].fingerprint == hashlib.sha256(plain).digest()
    assert len(shop.jobs.created[0].SerializeToString()) < 1000


# ---- letting go ---------------------------------------------------------------------------------------------


async def test_what_a_repeat_staged_is_dropped_and_what_the_job_needs_is_not(shop: Storefront) -> None:
    await shop.post(IMAGES, asking(BASE64), key="k")
    await shop.post(IMAGES, asking(BASE64), key="k")
    kept, repeated = shop.pool.staged
    await eventually(lambda: bool(shop.pool.dropped))
    assert shop.pool.dropped == [repeated]
    assert sent_ids(shop)[0] == kept


def sent_ids(shop: Storefront) -> list[str]:
    return [request.generation.references[0].reference_id for request in shop.jobs.created]


@pytest.mark.parametrize(
    "error,status",
    [
        (refusal(Kind.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS"), 402),
        (refusal(Kind.RESOURCE_EXHAUSTED, "QUEUE_FULL"), 429),
        (refusal(Kind.UNAVAILABLE, "PROVIDER_UNAVAILABLE"), 503),
        (refusal(Kind.ALREADY_EXISTS, "IDEMPOTENCY_KEY_CONFLICT"), 409),
    ],
)
async def test_what_a_refused_request_staged_is_dropped(
    shop: Storefront, error: ServiceError, status: int
) -> None:
    shop.jobs.refusal = error
    assert (await shop.post(IMAGES, asking(LARGE_BASE64))).status == status
    await eventually(lambda: shop.pool.dropped == list(shop.pool.staged))


@pytest.mark.parametrize(
    "error",
    [
        refusal(Kind.UNAVAILABLE, "UNAVAILABLE"),
        refusal(Kind.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
        refusal(Kind.UNAVAILABLE, "SHUTTING_DOWN"),
        refusal(Kind.INTERNAL, "INTERNAL"),
    ],
)
async def test_what_a_job_may_need_that_was_made_unseen_is_not_dropped(
    shop: Storefront, error: ServiceError
) -> None:
    shop.jobs.refusal = error
    assert (await shop.post(IMAGES, asking(BASE64), key="lost")).status in {500, 503}
    shop.jobs.refusal = refusal(Kind.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS")
    await shop.post(IMAGES, asking(BASE64), key="refused")
    maybe_needed, refused_one = shop.pool.staged
    await eventually(lambda: bool(shop.pool.dropped))
    assert shop.pool.dropped == [refused_one]
    assert maybe_needed in sent_ids(shop)


async def test_a_job_that_was_made_unseen_keeps_its_image_when_the_customer_repeats(shop: Storefront) -> None:
    shop.jobs.lose_answers = 1
    refused(await shop.post(IMAGES, asking(BASE64), key="k"), 503, "provider_unavailable")
    answer = await shop.post(IMAGES, asking(BASE64), key="k")
    assert (answer.status, answer.body["idempotentReplay"]) == (202, True)
    needed, repeated = shop.pool.staged
    await eventually(lambda: bool(shop.pool.dropped))
    assert shop.pool.dropped == [repeated]
    assert sent_ids(shop) == [needed, repeated]


async def test_of_two_equal_requests_at_once_one_job_and_its_image_remain(shop: Storefront) -> None:
    shop.jobs.answer_after_s = 0.2
    answers = await asyncio.gather(*(shop.post(IMAGES, asking(BASE64), key="k") for _ in range(2)))
    assert len({answer.body["jobId"] for answer in answers}) == 1
    replayed = sorted(answer.body["idempotentReplay"] for answer in answers)
    assert replayed == [False, True]
    await eventually(lambda: bool(shop.pool.dropped))
    assert shop.pool.dropped == [sent_ids(shop)[1]]


async def test_a_pool_that_is_gone_when_something_is_dropped_changes_nothing(shop: Storefront) -> None:
    first = await shop.post(IMAGES, asking(BASE64), key="k")
    staged = asyncio.create_task(shop.post(IMAGES, asking(BASE64), key="k"))
    await eventually(lambda: len(shop.pool.staged) == 2)
    shop.pool.refusal = refusal(Kind.UNAVAILABLE, "UNAVAILABLE")
    answer = await staged
    assert (answer.status, answer.body["jobId"]) == (202, first.body["jobId"])
