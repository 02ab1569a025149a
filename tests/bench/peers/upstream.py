"""A provider that answers at once: chat completions and images, in the shape that both peers translate."""

from __future__ import annotations

import asyncio

import uvloop
from aiohttp import web

_CHAT = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"measured","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"A lighthouse."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}'
)
_IMAGES = b'{"created":1700000000,"data":[{"url":"http://127.0.0.1/picture.png"}]}'


async def _chat(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=_CHAT, content_type="application/json")


async def _images(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=_IMAGES, content_type="application/json")


async def _serve() -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", _chat)
    app.router.add_post("/v1/images/generations", _images)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve())
