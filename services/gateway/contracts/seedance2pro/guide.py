"""The chapters of the guide on the documentation page."""

from __future__ import annotations

from typing import Final

from services.gateway.contract import Section

GUIDE: Final = (
    Section(
        "start",
        "Quick start",
        (
            "Make a task, ask for its record until it has ended, fetch its video. Everything is JSON over HTTPS.",
            (
                "`POST /api/v1/jobs/createTask` answers a `taskId` within a second or so; the video takes a minute or some. "
                "Poll `GET /api/v1/jobs/recordInfo?taskId=…` every few seconds, or give a `callBackUrl` and be told."
            ),
        ),
    ),
    Section(
        "authentication",
        "Authentication",
        (
            (
                "Send your key with every request: `Authorization: Bearer zimg_…`. A key is shown once, when it is made; it "
                "can be revoked at any time, and is refused everywhere within five seconds."
            ),
            "Keep keys on your servers. Media links need no key.",
        ),
        "Authorization: Bearer zimg_…",
    ),
    Section(
        "models",
        "Models and prices",
        (
            (
                "The top-level `model` names the workflow, `wan22-video-generation`, and `inputs.model` the model within it. "
                "Seedance 2.0 is `seedance-20`; such a task reports its model as `seedance20-video-generation`. A later "
                "edition of the request sends `seedance-20` at the top and no `inputs.model`, and reports `seedance-20`."
            ),
            (
                "Credits a second: `seedance-20` 40 from text or with `keyframe`, 90 with `reference`; `z video` 20; `sora2` "
                "40; `sora2 pro` 100; `grok-imagine-video` 40. They are reserved when a task is accepted, charged when it "
                "succeeds, and returned in full if it fails."
            ),
        ),
    ),
    Section(
        "inputs",
        "Images and videos to follow",
        (
            (
                "With `keyframe`, which is the default, one of `urls` is the first frame and two are the first and the last "
                "frame. With `reference` up to 9 `urls` and 3 `videoUrls` are followed, and `@1`, `@2` … in the prompt refer "
                "to them in their order, images first."
            ),
            (
                "Images are JPEG, PNG, WebP, BMP, TIFF or GIF of 20 MB at most, as public HTTPS URLs, data URLs or base64. "
                "Videos are MP4, MOV or WebM of 100 MB and 60 seconds, as URLs only. The bytes decide, not the name."
            ),
            (
                "What can be told at once is answered **400**, and nothing is reserved. What is behind a URL is fetched after "
                "the task was accepted: if that goes wrong the task fails, and its `error` names "
                "`reference_unavailable` or `invalid_reference_image`."
            ),
        ),
    ),
    Section(
        "idempotency",
        "Idempotency",
        (
            (
                "An `Idempotency-Key` header (1 to 255 printable ASCII characters, one for each task that you want) makes "
                "`createTask` safe to repeat: the same key with the same request answers the first task again, with the "
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
                "When a task has ended, the JSON of its record is sent to its `callBackUrl`, and to your account's address "
                "if it has one, at least once. Any 2xx answer within ten seconds is success; otherwise it is tried again, "
                "nine times in two days."
            ),
            (
                "The headers of Standard Webhooks are sent with it (`webhook-id`, `webhook-timestamp`, `webhook-signature`), "
                "so that you can check where it comes from."
            ),
        ),
    ),
    Section(
        "test-mode",
        "Test mode",
        (
            (
                "Keys that begin with `zimg_test_` work on the same addresses with a wallet of play credits. Their videos are "
                "rendered by a built-in generator: real MP4 files, in seconds, at no cost."
            ),
            "Test keys never see live tasks, nor live keys test tasks.",
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
                "fields are ignored; a known field of a wrong type or value is answered **400** with its name."
            ),
            "Every answer carries `X-Request-Id`. Send your own (up to 128 printable ASCII characters) and it is kept.",
        ),
    ),
)
