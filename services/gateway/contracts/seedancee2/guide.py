"""The chapters of the guide on the documentation page."""

from __future__ import annotations

from typing import Final

from services.gateway.contract import Section

GUIDE: Final = (
    Section(
        "start",
        "Quick start",
        (
            "Make a video, ask until it is ready, fetch it. Everything is JSON over HTTPS.",
            (
                "A create request answers **200** with an `id` within a second or so; the video takes a minute or some. Poll "
                "`GET /v1/videos/generations/{id}` every few seconds, or give a `callback_url` and be told."
            ),
        ),
    ),
    Section(
        "authentication",
        "Authentication",
        (
            (
                "Send your key with every request: `Authorization: Bearer sk_seedancee2_live_…`, or the same key as "
                "`x-api-key`. Where both are sent `Authorization` counts. A key is shown once, when it is made; it can be "
                "revoked at any time, and is refused everywhere within five seconds."
            ),
            "Keep keys on your servers. Media links need no key.",
        ),
        "Authorization: Bearer sk_seedancee2_live_…",
    ),
    Section(
        "models",
        "Models and prices",
        (
            "`pro` is standard production quality: 10 credits a second at 480p, 20 at 720p, 50 at 1080p.",
            "`fast` is for faster iteration: 8 credits a second at 480p, 16 at 720p.",
            "`mini` costs the least: 5 credits a second at 480p, 10 at 720p.",
            (
                "Every model makes 4 to 15 seconds. References, sound and the last frame cost nothing extra. The price is "
                "reserved when a video is accepted, charged when it completes, and returned in full if it fails."
            ),
        ),
    ),
    Section(
        "references",
        "Images, videos and sounds to follow",
        (
            (
                "`omni_reference` follows up to 9 images, 3 videos and 3 sounds. `first_and_last_frames` goes from one image "
                "to another: `start_image_url` and `end_image_url`, or exactly two `image_urls`, and nothing else."
            ),
            (
                "Images are JPEG, PNG, WebP, BMP, TIFF or GIF of 20 MB at most, as public HTTPS URLs, data URLs or base64; of "
                "an animation the first frame is taken. Videos are MP4, MOV or WebM of 100 MB, sounds MP3, WAV, M4A or OGG of "
                "20 MB, both of 60 seconds at most and as URLs only. All media of one request have 128 MB at most. The "
                "bytes decide, not the name and not the declared type."
            ),
            (
                "What can be told at once is answered **400**, and nothing is reserved. What is behind a URL is fetched after "
                "the video was accepted: if that goes wrong the video fails with `error.code` `reference_unavailable` or "
                "`invalid_reference_image`, and its credits are returned."
            ),
        ),
    ),
    Section(
        "idempotency",
        "Idempotency",
        (
            (
                "An `Idempotency-Key` header (1 to 255 printable ASCII characters, one for each video that you want) makes a "
                "create request safe to repeat: the same key with the same request answers the first video again, with the "
                "header `Idempotent-Replayed: true`. With another request it is **409**. Keys are kept for at least 24 hours."
            ),
            "After **402**, **429** or **503** nothing was made or reserved, and the same key may be used again.",
        ),
        "Idempotency-Key: order-1842-teaser",
    ),
    Section(
        "webhooks",
        "Webhooks",
        (
            (
                "When a video has completed or failed, the JSON that getting it answers is sent to its `callback_url`, and to "
                "your account's address if it has one, at least once. Any 2xx answer within ten seconds is success; "
                "otherwise it is tried again, nine times in two days."
            ),
            (
                "`X-Seedancee2-Event` is `video.generation.completed` or `video.generation.failed`. "
                "`X-Seedancee2-Signature` is `t=<seconds>,v1=<hex>`, where the hex digits are the HMAC-SHA-256 of "
                "`{t}.{raw body}` under your signing secret, all of it (`whsec_…`) taken as text. The headers of Standard "
                "Webhooks (`webhook-id`, `webhook-timestamp`, `webhook-signature`) are sent too."
            ),
        ),
        "X-Seedancee2-Event: video.generation.completed\nX-Seedancee2-Signature: t=1770000000,v1=5257a869…",
    ),
    Section(
        "test-mode",
        "Test mode",
        (
            (
                "Keys that begin with `sk_seedancee2_test_` work on the same addresses with a wallet of play credits. Their "
                "videos are rendered by a built-in generator: real MP4 files, in seconds, at no cost."
            ),
            "Test keys never see live videos, nor live keys test videos.",
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
                "Bodies must be `application/json` in UTF-8, at most 28 MiB with inline images and 1 MiB beside them. Unknown "
                "fields are ignored; a known field of a wrong type or value is answered **400** with its name in "
                '`error.param`: `5.0` or `"5"` is not an integer.'
            ),
            "Every answer carries `X-Request-Id`. Send your own (up to 128 printable ASCII characters) and it is kept.",
        ),
    ),
)
