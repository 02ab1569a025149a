"""The chapters of the guide on the documentation page."""

from __future__ import annotations

from typing import Final

from services.gateway.contract import Section

GUIDE: Final = (
    Section(
        "start",
        "Quick start",
        (
            "Make a job, ask until it has ended, fetch its result. Everything is JSON over HTTPS.",
            (
                "A create request answers **202** with a `jobId` within a second or so; images take seconds, videos minutes. "
                "Poll `GET /v1/jobs/{jobId}` every two to five seconds: nothing changes faster than that."
            ),
        ),
    ),
    Section(
        "authentication",
        "Authentication",
        (
            (
                "Send your key with every `/v1` request: `Authorization: Bearer ak_live_…`. A key is shown once, when it is "
                "made; it can be revoked at any time, and is refused everywhere within five seconds."
            ),
            "Keep keys on your servers. Media links need no key.",
        ),
        "Authorization: Bearer ak_live_…",
    ),
    Section(
        "test-mode",
        "Test mode",
        (
            (
                "Keys that begin with `ak_test_` work on the same addresses with a wallet of play credits. Test jobs "
                "are rendered by a built-in generator: real PNG and MP4 files, in seconds, at no cost."
            ),
            "Test keys never see live jobs, nor live keys test jobs.",
        ),
    ),
    Section(
        "idempotency",
        "Idempotency",
        (
            (
                "Both create requests need an `Idempotency-Key` header: 1 to 255 printable ASCII characters, one for each "
                "job that you want. If an answer gets lost, send the same request with the same key again: you get the "
                "original job, with `idempotentReplay: true` and the header `Idempotent-Replayed: true`, and pay once."
            ),
            (
                "The same key with another request is answered **409** `idempotency_key_conflict`. Requests are compared "
                "as parsed: white space, key order and unknown fields do not matter. Keys are kept for at least 24 hours."
            ),
            "After **402**, **429** or **503** nothing was made or reserved, and the same key may be used again.",
        ),
        "Idempotency-Key: order-1842-hero-image",
    ),
    Section(
        "credits",
        "Credits",
        (
            (
                "An image costs 20 credits (`LOW`) or 60 (`MEDIUM`), a video 600 for each second. The price is "
                "reserved when a job is accepted, charged when it completes, and returned in full if it fails."
            ),
        ),
    ),
    Section(
        "reference-images",
        "Reference images",
        (
            (
                "`referenceImage` names one image for the output to follow, as an object with `imageUrl` and `strength` "
                "(`LOW`, `MID` or `HIGH`), or as a bare string that stands for `imageUrl`. It takes three forms: a public "
                "HTTPS URL, a data URL (`data:image/png;base64,…`), or plain base64 (the standard alphabet, with padding, "
                "without white space)."
            ),
            (
                "JPEG, PNG or WebP, not animated, at most 20 MB, 50 megapixels and 16,384 pixels a side. The bytes decide, "
                "not the name and not the declared type. The image is used without its metadata (EXIF with its GPS position, "
                "texts, comments, thumbnails); its pixels, orientation and colour profile stay as they are."
            ),
            (
                "A URL must answer over HTTPS on port 443 on a public host, without a login, with at most three redirects and "
                "within 15 seconds. It is fetched after the job was accepted, so what goes wrong then ends the job: its "
                "`error.code` is `reference_unavailable` if the image could not be fetched, whatever the cause, or "
                "`invalid_reference_image` if what is there cannot be used. The credits are returned."
            ),
            (
                "What can be told at once is answered **400** `invalid_reference_image`, and nothing is reserved: a URL that "
                "is malformed, not HTTPS or not of a public host, and everything about an inline image. Repeats under one "
                "`Idempotency-Key` are compared by the inline image's content, or by the URL as it was written."
            ),
        ),
        '{"prompt": "the same bottle on a beach",\n'
        ' "referenceImage": {"imageUrl": "https://example.com/reference.png", "strength": "MID"}}',
    ),
    Section(
        "webhooks",
        "Webhooks",
        (
            (
                "When an address is set for your account, the end of every job is sent there at least once: what "
                "`GET /v1/jobs/{jobId}` answers, in a POST that is signed after Standard Webhooks. Any 2xx within ten seconds "
                "says that you have it; anything else is tried again, nine times in two days. Check the signature over the raw "
                "body, and ignore a `webhook-id` that you have seen."
            ),
        ),
    ),
    Section(
        "limits",
        "Limits",
        (
            (
                "Every answer to a good key carries `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` (seconds): requests "
                "in any 60 seconds. **429** and **503** also carry `Retry-After` in whole seconds; wait that long."
            ),
            (
                "Bodies must be `application/json` in UTF-8, at most 28 MiB with an inline image and 1 MiB beside it. Unknown fields are ignored; a known field of a "
                'wrong type or value is answered **400** with its name in `error.field`: `15.0` or `"15"` is not an integer.'
            ),
            "Every answer carries `X-Request-Id`. Send your own (up to 128 printable ASCII characters) and it is kept.",
        ),
    ),
)
