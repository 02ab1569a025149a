"""The chapters of the guide on the documentation page."""

from __future__ import annotations

from typing import Final

from services.gateway.contract import Section

GUIDE: Final = (
    Section(
        "start",
        "Quick start",
        (
            "Make a task, ask until it has ended, fetch its video. Everything is JSON over HTTPS.",
            (
                "Every answer has the same envelope: `code` (the HTTP status once more), `trace_id`, `message` and `data`. "
                "Look at `code`; on errors `data` is null and `message` says what is wrong."
            ),
            (
                "A video takes from seconds to minutes. Ask `GET /api/v1/tasks?task_id=…` every two to five seconds: nothing "
                "changes faster than that."
            ),
        ),
        '{"code": 200, "trace_id": "45c30d76f06549b199a3775544523689", "message": "success", "data": {…}}',
    ),
    Section(
        "authentication",
        "Authentication",
        (
            (
                "Send your key with every request: `Authorization: Bearer lv_live_…`. A key is shown once, when it is made; "
                "it can be revoked at any time, and is refused everywhere within five seconds."
            ),
            "Keep keys on your servers. Media links need no key.",
        ),
        "Authorization: Bearer lv_live_…",
    ),
    Section(
        "test-mode",
        "Test mode",
        (
            (
                "Keys that begin with `lv_test_` work on the same addresses with a wallet of play credits. Test tasks are "
                "rendered by a built-in generator: real MP4 files, in seconds, at no cost."
            ),
            "Test keys never see live tasks, nor live keys test tasks.",
        ),
    ),
    Section(
        "references",
        "Reference media",
        (
            (
                "In `omni_reference` the video follows up to nine images, three videos and three audio files; audio needs an "
                "image or a video beside it. In `first_last_frames` the first image begins the video, and the second ends it."
            ),
            (
                "Media are given as public HTTPS URLs on port 443; images also as data URLs (`data:image/png;base64,…`) or "
                "plain base64. The bytes decide what a file is, not its name. Images: JPEG, PNG, WebP, BMP, TIFF or GIF, 20 "
                "MB, 50 megapixels and 16,384 pixels a side at most; of animations the first frame is taken. Videos: MP4, MOV "
                "or WebM, 100 MB. Audio: MP3, WAV, M4A or OGG, 20 MB. Videos and audio last at most 60 seconds. All media of a "
                "request together are at most 128 MiB."
            ),
            (
                "What can be told at once is answered **400**, and nothing is reserved. URLs are fetched after the task was "
                "accepted: what goes wrong then ends the task, `result.error_message` says what it was, and the credits are "
                "returned."
            ),
        ),
        '{"prompt": "the cat of the first picture walks through the second one",\n'
        ' "image_urls": ["https://example.com/cat.png", "https://example.com/garden.jpg"]}',
    ),
    Section(
        "credits",
        "Credits",
        (
            (
                "A second costs 2.4 credits with `seedance_2_0` and 1.9 with `seedance_2_0_fast`. The price is reserved when "
                "a task is accepted, charged when it succeeds, and returned in full if it fails. Costs are decimals (`12.0`); "
                "the totals of `GET /api/v1/credits` are whole numbers where they are whole."
            ),
        ),
    ),
    Section(
        "idempotency",
        "Idempotency",
        (
            (
                "An `Idempotency-Key` header is optional: 1 to 255 printable ASCII characters, one for each task that you "
                "want. If an answer gets lost, send the same request with the same key again: you get the original task with "
                "the header `Idempotent-Replayed: true`, and pay once. The same key with another request is **409**. Keys are "
                "kept for at least 24 hours."
            ),
            "After **402**, **429** or **503** nothing was made or reserved, and the same key may be used again.",
        ),
        "Idempotency-Key: order-1842-trailer",
    ),
    Section(
        "webhooks",
        "Webhooks",
        (
            (
                "When a webhook address is set for your account, the end of every task is sent there: the JSON that "
                "`GET /api/v1/tasks` answers, in a POST that is signed after Standard Webhooks (`webhook-id`, "
                "`webhook-timestamp`, `webhook-signature`). Any 2xx says that you have it; anything else is tried again, for "
                "up to two days."
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
                "Bodies must be `application/json` in UTF-8, at most 28 MiB with inline images and 1 MiB beside them. Unknown "
                'fields are ignored; a known field of a wrong type or value is **400**: `5.0` or `"5"` is not an integer.'
            ),
        ),
    ),
)
