"""Leonardo's calls: images and motion by v1, everything newer by v2, all of it read by v1."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from aiohttp import web

from services.simulator.accounts import Account, Usual
from services.simulator.faults import Call, Fault
from services.simulator.leonardo import answers, side_calls, v1_orders, v2_orders
from services.simulator.leonardo.v1_orders import NATIVE_MODELS, Order, Reference
from services.simulator.leonardo.v2_orders import MODELS, ParametersRefused
from services.simulator.provider import Exchange, Refused, Route, bearer
from services.simulator.recent import Recent
from services.simulator.tasks import Charge, State, Task
from services.simulator.uploads import Upload
from services.simulator.world import World

_V1: Final = "/leonardo/api/rest/v1"
_V2: Final = "/leonardo/api/rest/v2"
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# How long a presigned form may be posted.
_FORM_LIFETIME_S: Final = 120.0
# Images that may wait for a slot; what comes above is refused.
_PENDING_LIMIT: Final = 200
# In a minute, on each route that begins something.
_CREATES_PER_MINUTE: Final = 100
_MINUTE_MS: Final = 60_000
_IMAGE_TYPES: Final = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp"}
_MEDIA_TYPES: Final = {"mp4": "video/mp4", "mov": "video/quicktime"}
_PAGE: Final = 10
_PAGE_LIMIT: Final = 100
# Neither retries nor their number are documented; one more is what a client may hope for.
_HOOK_WAITS_S: Final = (1.0,)
_HOOK_TIMEOUT_S: Final = 10.0


class Leonardo:
    """One provider in a world."""

    name: Final = "leonardo"
    usual: Final = Usual(
        balance=Decimal(50),
        concurrency=10,
        latency_s={"image": 12.0, "video": 90.0, "music": 40.0, "voice": 10.0},
        overflow="queue",
        plan="payg",
    )

    def __init__(self, world: World) -> None:
        self._world = world
        self._made = Recent(_MINUTE_MS)

    def routes(self) -> Sequence[Route]:
        return [
            Route("POST", f"{_V1}/generations", self._create_image, Call.CREATE),
            Route("POST", f"{_V1}/generations-text-to-video", self._create_from_text, Call.CREATE),
            Route("POST", f"{_V1}/generations-image-to-video", self._create_from_image, Call.CREATE),
            Route("POST", f"{_V2}/generations", self._create_v2, Call.CREATE),
            Route("POST", f"{_V1}/generations-motion-svd", self._create_svd, Call.CREATE),
            Route("POST", f"{_V1}/generations-video-upscale", self._create_upscale, Call.CREATE),
            Route("POST", f"{_V2}/generationssync", self._cut_out, Call.CREATE),
            Route("GET", f"{_V1}/generations/{{id}}", self._read, Call.READ),
            Route("DELETE", f"{_V1}/generations/{{id}}", self._delete, Call.CANCEL),
            Route("GET", f"{_V1}/generations/user/{{user}}", self._list, Call.READ),
            Route("POST", f"{_V1}/init-image", self._open_image, Call.UPLOAD),
            Route("GET", f"{_V1}/init-image/{{id}}", self._read_image, Call.UPLOAD),
            Route("DELETE", f"{_V1}/init-image/{{id}}", self._delete_image, Call.UPLOAD),
            Route("POST", f"{_V1}/canvas-init-image", self._open_canvas, Call.UPLOAD),
            Route("POST", f"{_V1}/media", self._open_media, Call.UPLOAD),
            Route("GET", f"{_V1}/media/{{id}}", self._read_media, Call.UPLOAD),
            Route("GET", f"{_V1}/me", self._me, Call.ACCOUNT),
            Route("GET", f"{_V1}/platformModels", self._platform_models, Call.ACCOUNT),
            Route("POST", f"{_V1}/pricing-calculator", self._price, Call.ACCOUNT),
            Route("GET", f"{_V2}/models", self._models, Call.ACCOUNT),
        ]

    def key_of(self, request: web.Request) -> str:
        return bearer(request)

    def refusal(self, fault: Fault, wait_s: float | None = None) -> web.Response:
        return answers.of_fault(fault, wait_s)

    def unknown_key(self, key: str) -> web.Response:
        """A key of the right form is unauthorized; anything else breaks the hook that checks it."""
        return answers.of_fault(Fault.UNAUTHORIZED, None) if _UUID.fullmatch(key) else answers.dead_key()

    def over_concurrency(self, account: Account) -> web.Response:
        return answers.of_fault(Fault.RATE_LIMITED, None)

    def not_found(self) -> web.Response:
        return answers.error(404, "Endpoint not found", "not-found")

    def changed(self, task: Task) -> None:
        url = task.account.options.get("webhook_url")
        if isinstance(url, str) and task.state is State.SUCCEEDED:
            body = json.dumps(_hook_body(task, url), separators=(",", ":")).encode()
            secret = str(task.account.options.get("webhook_secret", ""))
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"}
            self._world.hooks.send(
                self.name, url, lambda _: (body, headers), waits_s=_HOOK_WAITS_S, timeout_s=_HOOK_TIMEOUT_S
            )

    async def _create_image(self, exchange: Exchange) -> web.Response:
        order = v1_orders.image_order(_object(exchange))
        return self._job(self._accepted(exchange, order), "sdGenerationJob")

    async def _create_from_text(self, exchange: Exchange) -> web.Response:
        order = v1_orders.motion_order(_object(exchange), has_image=False)
        return self._job(self._accepted(exchange, order), "motionVideoGenerationJob")

    async def _create_from_image(self, exchange: Exchange) -> web.Response:
        order = v1_orders.motion_order(_object(exchange), has_image=True)
        return self._job(self._accepted(exchange, order), "motionVideoGenerationJob")

    async def _create_v2(self, exchange: Exchange) -> web.Response:
        try:
            order = v2_orders.order_of(_object(exchange))
        except ParametersRefused as fault:
            raise Refused(answers.error_in_array(str(fault))) from None
        if Fault.MODERATED_BEFORE in exchange.faults:
            text = "The prompt holds inappropriate content, content moderation filter: NSFW"
            raise Refused(answers.error_in_array(text, "CONTENT_MODERATED"), "moderated_before")
        task = self._accepted(exchange, order)
        account = task.account
        # Both forms have been seen; which one comes is nothing that a client can know.
        if account.options.get("v2_form", "bare" if task.seed % 4 == 0 else "whole") == "bare":
            job = {"generationId": task.id, "apiCreditCost": answers.credits_of(account, task.cost)}
            return web.json_response(job)
        cost = answers.cost_of(account, task.cost)
        return web.json_response({"generate": {"generationId": task.id, "apiCreditCost": None, "cost": cost}})

    async def _create_svd(self, exchange: Exchange) -> web.Response:
        order = side_calls.svd_order(_object(exchange))
        return self._job(self._accepted(exchange, order), "motionSvdGenerationJob")

    async def _create_upscale(self, exchange: Exchange) -> web.Response:
        body = _object(exchange)
        source = self._image_owner(exchange.account, side_calls.upscale_source(body))
        task = self._accepted(exchange, side_calls.upscale_order(body, source))
        return self._job(task, "motionVideoGenerationJob", variationId=answers.image_id(task, 1))

    async def _cut_out(self, exchange: Exchange) -> web.Response:
        body = _object(exchange)
        order = side_calls.cut_out_order(body)
        lifetime_s = side_calls.EPHEMERAL_S if body.get("ephemeral") else None
        task = await exchange.finished(self._accepted(exchange, order, lifetime_s))
        if task.state is not State.SUCCEEDED:
            raise Refused(answers.of_fault(Fault.SERVER_ERROR, None), "failed")
        results = []
        for file, drawing in zip(task.files, order.drawings, strict=False):
            content = await self._world.studio.draw(drawing)
            data = {"dataB64": base64.b64encode(content).decode()}
            where = data if body.get("base64") else {"url": file.url(task.base_url)}
            results.append({"contentType": "image/png", **where, "width": 1024, "height": 1024})
        cost = answers.cost_of(task.account, task.cost)
        return web.json_response({"id": task.id, "blockedCount": 0, "cost": cost, "results": results})

    def _accepted(self, exchange: Exchange, order: Order, lifetime_s: float | None = None) -> Task:
        account = exchange.account
        for reference in order.references:
            self._check(account, reference)
        cost = order.usd
        if account.options.get("unit") == "credits":
            cost = (cost * answers.CREDITS_PER_DOLLAR).to_integral_value(rounding="ROUND_CEILING")
        if not account.affords(cost):
            raise Refused(
                answers.error(400, f"not enough api tokens userId: {account.user_id}", "unexpected"),
                "balance",
            )
        if account.waiting >= _PENDING_LIMIT:
            raise Refused(self.over_concurrency(account), "concurrency")
        self._throttle(exchange)
        refunds = account.options.get("refunds_failures", True)
        return exchange.accept(
            f"{self._world.new_uuid()[:-2]}00",
            kind=order.kind,
            model=order.model,
            prompt=order.prompt,
            drawings=order.drawings,
            cost=cost,
            charge=Charge.AT_SUBMIT_REFUNDED if refunds else Charge.AT_SUBMIT,
            facts=order.facts,
            output_lifetime_s=lifetime_s,
        )

    def _throttle(self, exchange: Exchange) -> None:
        made = self._made.of(exchange.account, exchange.now_ms, exchange.request.path)
        # Where work is done faster than there, more of it fits into a minute.
        if len(made) >= round(_CREATES_PER_MINUTE * max(1.0, self._world.pace)):
            raise Refused(answers.of_fault(Fault.RATE_LIMITED, None), "rate")
        made.append(exchange.now_ms)

    def _check(self, account: Account, reference: Reference) -> None:
        if reference.is_uploaded:
            upload = self._world.uploads.find(self.name, account.key, reference.id)
            if upload is None:
                raise answers.refused("invalid init image id")
            if not upload.has_arrived:
                raise answers.refused("couldn't access image")
        elif self._image_owner(account, reference.id) is None:
            raise answers.refused("invalid init image id")

    def _image_owner(self, account: Account, image_id: str) -> Task | None:
        task = self._world.tasks.find(account, f"{image_id[:-2]}00")
        return task if task is not None and task.state is State.SUCCEEDED else None

    @staticmethod
    def _job(task: Task, name: str, **more: str) -> web.Response:
        job = {
            "generationId": task.id,
            "apiCreditCost": answers.credits_of(task.account, task.cost),
            "cost": answers.cost_of(task.account, task.cost),
        }
        return web.json_response({name: job | more})

    async def _read(self, exchange: Exchange) -> web.Response:
        task = self._world.tasks.find(exchange.account, exchange.request.match_info["id"])
        shown = None if task is None else answers.generation(task, exchange.now_ms)
        return web.json_response({"generations_by_pk": shown})

    async def _delete(self, exchange: Exchange) -> web.Response:
        task = self._world.tasks.find(exchange.account, exchange.request.match_info["id"])
        if task is None or task.ended_ms is None:
            return web.json_response({"delete_generations_by_pk": None})
        task.is_deleted = True
        return web.json_response({"delete_generations_by_pk": {"id": task.id}})

    async def _list(self, exchange: Exchange) -> web.Response:
        account, query = exchange.account, exchange.request.query
        try:
            offset, limit = int(query.get("offset", 0)), int(query.get("limit", _PAGE))
        except ValueError:
            raise answers.refused("offset and limit are numbers", "validation-failed") from None
        is_own = exchange.request.match_info["user"] == account.user_id
        mine = self._world.tasks.of_account(account) if is_own else []
        page = mine[offset : offset + min(limit, _PAGE_LIMIT)]
        return web.json_response(
            {"generations": [answers.generation(task, exchange.now_ms) for task in page]}
        )

    async def _open_image(self, exchange: Exchange) -> web.Response:
        upload = self._opened(exchange, _extension(exchange, "extension", _IMAGE_TYPES), _IMAGE_TYPES)
        form = {
            "id": upload.id,
            "fields": json.dumps(upload.fields),
            "key": upload.object_key,
            "url": upload.url(exchange.base_url),
        }
        return web.json_response({"uploadInitImage": form})

    async def _open_media(self, exchange: Exchange) -> web.Response:
        upload = self._opened(exchange, _extension(exchange, "extension", _MEDIA_TYPES), _MEDIA_TYPES)
        form = {
            "uploadId": upload.id,
            "fields": json.dumps(upload.fields),
            "url": upload.url(exchange.base_url),
        }
        return web.json_response({"uploadMedia": form})

    async def _open_canvas(self, exchange: Exchange) -> web.Response:
        forms: dict[str, str] = {}
        for part in ("init", "mask"):
            extension = _extension(exchange, f"{part}Extension", _IMAGE_TYPES)
            upload = self._opened(exchange, extension, _IMAGE_TYPES)
            forms |= {
                f"{part}ImageId": upload.id,
                f"{part}Fields": json.dumps(upload.fields),
                f"{part}Key": upload.object_key,
                f"{part}Url": upload.url(exchange.base_url),
            }
        return web.json_response({"uploadCanvasInitImage": forms})

    def _opened(self, exchange: Exchange, extension: str, types: Mapping[str, str]) -> Upload:
        return self._world.uploads.open(
            self.name,
            exchange.account.key,
            str(uuid.UUID(self._world.new_uuid())),
            content_type=types[extension],
            extension=extension,
            now_ms=exchange.now_ms,
            lifetime_s=_FORM_LIFETIME_S,
        )

    def _upload(self, exchange: Exchange) -> Upload | None:
        upload_id = exchange.request.match_info["id"]
        return self._world.uploads.find(self.name, exchange.account.key, upload_id)

    async def _read_image(self, exchange: Exchange) -> web.Response:
        upload = self._upload(exchange)
        if upload is None:
            return web.json_response({"init_images_by_pk": None})
        shown = {
            "id": upload.id,
            "url": f"{upload.url(exchange.base_url)}{upload.object_key}",
            "createdAt": answers.moment(upload.made_ms),
        }
        return web.json_response({"init_images_by_pk": shown})

    async def _delete_image(self, exchange: Exchange) -> web.Response:
        upload = self._upload(exchange)
        if upload is None:
            return web.json_response({"delete_init_images_by_pk": None})
        self._world.uploads.remove(upload)
        return web.json_response({"delete_init_images_by_pk": {"id": upload.id}})

    async def _read_media(self, exchange: Exchange) -> web.Response:
        upload = self._upload(exchange)
        if upload is None:
            return web.json_response({"uploaded_media_by_pk": None})
        shown = {
            "id": upload.id,
            "url": f"{upload.url(exchange.base_url)}{upload.object_key}",
            "thumbnailUrl": None,
            "status": "COMPLETE" if upload.has_arrived else "PENDING",
            "statusReason": None,
            "mediaType": "VIDEO",
            "duration": None,
            "width": None,
            "height": None,
            "video_fps": None,
            "createdAt": answers.moment(upload.made_ms),
        }
        return web.json_response({"uploaded_media_by_pk": shown})

    async def _me(self, exchange: Exchange) -> web.Response:
        return web.json_response(answers.account_details(exchange.account))

    async def _platform_models(self, exchange: Exchange) -> web.Response:
        models = [{"id": id_, "name": name, "description": name} for id_, name in NATIVE_MODELS.items()]
        return web.json_response({"custom_models": models})

    async def _price(self, exchange: Exchange) -> web.Response:
        body = _object(exchange)
        service = str(body.get("service"))
        parameters = body.get("serviceParams")
        wanted = parameters.get(service) if isinstance(parameters, dict) else None
        if service != "IMAGE_GENERATION" or not isinstance(wanted, dict):
            raise answers.refused("Invalid value for service", "validation-failed")
        order = v1_orders.image_order({"prompt": "price", "num_images": wanted.get("numImages", 1)})
        cost = max(1, int(order.usd * answers.CREDITS_PER_DOLLAR))
        return web.json_response({"calculateProductionApiServiceCost": {"cost": cost}})

    async def _models(self, exchange: Exchange) -> web.Response:
        models = [
            {
                "id": str(uuid.uuid5(uuid.NAMESPACE_URL, slug)),
                "name": slug.replace("-", " ").title(),
                "parameters": v2_orders.schema_of(slug),
            }
            for slug in MODELS
        ]
        return web.json_response({"productionApiAvailableModels": models})


def _extension(exchange: Exchange, name: str, types: Mapping[str, str]) -> str:
    extension = _object(exchange).get(name)
    if not isinstance(extension, str) or extension not in types:
        raise answers.refused(f"Invalid value for {name}", "validation-failed")
    return extension


def _object(exchange: Exchange) -> dict[str, Any]:
    try:
        body = exchange.json()
    except ValueError:
        raise answers.refused("Invalid JSON", "parse-failed") from None
    if not isinstance(body, dict):
        raise answers.refused("Invalid JSON", "parse-failed")
    return body


def _hook_body(task: Task, url: str) -> dict[str, Any]:
    # The key's record is in it, with the secret that the receiver checks: a client must not log this.
    shown = answers.generation(task, task.changed_ms)
    images = [{"id": image["id"], "url": image["url"], "nsfw": False} for image in shown["generated_images"]]
    key = {
        "webhookCallbackUrl": url,
        "webhookCallbackApiKey": task.account.options.get("webhook_secret", ""),
    }
    return {
        "type": f"{task.kind}_generation.complete",
        "object": "generation",
        "timestamp": task.changed_ms,
        "api_version": "v1",
        "data": {
            "object": {
                "id": task.id,
                "status": shown["status"],
                "images": images,
                "apiDollarCost": f"{task.cost:f}",
                "apiKey": key,
            }
        },
    }
