"""The chapters of the guide on the documentation page."""

from __future__ import annotations

from typing import Final

from services.gateway.contract import Section

GUIDE: Final = (
    Section(
        "start",
        "Quick start",
        (
            "Log in, ask for a generation, ask until it has ended, fetch its outputs. Everything but the login is JSON.",
            (
                "`POST /api/v1/generations` answers **201** within a second or so; texts take seconds, videos minutes. Ask "
                "`GET /api/v1/generations/{id}/status` every two to five seconds: nothing changes faster than that."
            ),
        ),
    ),
    Section(
        "authentication",
        "Authentication",
        (
            (
                "Sign up, then log in with a form (`username` is the email address). Send the token of the answer with every "
                "request: `Authorization: Bearer eyJ…`. It lasts for a day and ends when the password changes."
            ),
            (
                "An API key (`il_live_…`) works in the token's place. It is shown once, when it is made; it can be revoked at "
                "any time, and is refused everywhere within five seconds. Keep both on your servers."
            ),
        ),
        "curl https://…/api/v1/auth/login --data-urlencode 'username=ada@example.com' --data-urlencode 'password=…'",
    ),
    Section(
        "test-mode",
        "Test mode",
        (
            (
                "Keys that begin with `il_test_` work on the same addresses with a wallet of play credits. Their generations "
                "are made by a built-in generator: real files, in seconds, at no cost. A login is for the live wallet."
            ),
            "Test keys never see live generations, nor others test generations.",
        ),
    ),
    Section(
        "types",
        "Types and settings",
        (
            (
                "`image`, `video`, `voice`, `music`, `infographic` and `text`. Each model says in "
                "`GET /api/v1/generations/models` what it costs and, as JSON Schema, what it lets you set. Unknown settings "
                "are ignored; a known one of a wrong type or value is **400**."
            ),
            (
                "For `voice` the prompt is what is said. For `infographic` numbers in the prompt become the chart: "
                "`Q1 20, Q2 35, Q3 45`. A `text` comes inside its output, everything else as a link that works without a token "
                "for 24 hours; each read gives a fresh one."
            ),
        ),
        '{"generation_type": "video", "model_name": "seedance-2.0", "prompt": "A paper boat in the rain",\n'
        ' "settings": {"aspect_ratio": "16:9", "duration": 8, "generate_audio": true}}',
    ),
    Section(
        "credits",
        "Credits",
        (
            (
                "A text costs 2 credits, voice 3, an image 5, music 8, an infographic 10, a video 15. The cost is reserved when "
                "a generation is accepted, charged when it completes, and returned in full if it fails or is deleted before."
            ),
        ),
    ),
    Section(
        "idempotency",
        "Idempotency",
        (
            (
                "An `Idempotency-Key` header is optional: 1 to 255 printable ASCII characters, one for each generation that "
                "you want. If an answer gets lost, send the same request with the same key again: you get the original "
                "generation with the header `Idempotent-Replayed: true`, and pay once. The same key with another request is "
                "**409**. Keys are kept for at least 24 hours."
            ),
            "After **402**, **429** or **503** nothing was made or reserved, and the same key may be used again.",
        ),
        "Idempotency-Key: order-1842-skyline",
    ),
    Section(
        "webhooks",
        "Webhooks",
        (
            (
                "When a webhook address is set for your account, the end of every generation is sent there: the record that "
                "`GET /api/v1/generations/{id}` answers, in a POST that is signed after Standard Webhooks (`webhook-id`, "
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
                "Answers to a token carry `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` (seconds): requests "
                "in any 60 seconds. **429** and **503** also carry `Retry-After` in whole seconds; wait that long. Wrong "
                "logins and requests for a new password are limited for each address and for each client."
            ),
            (
                "Bodies must be `application/json` in UTF-8, the login's `application/x-www-form-urlencoded`, at most 1 MiB. "
                'Unknown fields are ignored; a known field of a wrong type or value is **400**: `5.0` or `"5"` is not an '
                "integer."
            ),
        ),
    ),
)
