"""Creating tasks on `seedance2pro`: models of two levels, fields, prices, references, idempotency."""

from __future__ import annotations

from typing import Any

import pytest

from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Storefront
from tests.contracts.seedance2pro import ID, TASK, WORKFLOW, Client, refused
from tests.fakes import key_of

INPUTS = "Invalid inputs for model"
PARAMETERS = "Invalid request parameters"
A, B, C = (f"https://example.com/{name}" for name in "abc")


def order(shop: Storefront) -> jobs.CreateJobRequest:
    """The last one that was sent to the jobs service."""
    return shop.jobs.created[-1]


def roles(shop: Storefront) -> list[tuple[str, str]]:
    return [
        (each.url, jobs.Reference.Role.Name(each.role).removeprefix("ROLE_"))
        for each in order(shop).generation.references
    ]


async def record(shop: Storefront) -> dict[str, Any]:
    """The record of the one task."""
    (task_id,) = shop.jobs.kept
    body: dict[str, Any] = (await Client(shop).record(task_id)).body
    return body


# ---- models -------------------------------------------------------------------------------------------------


async def test_a_task_is_answered_with_its_id_and_nothing_else(shop: Storefront) -> None:
    answer = await Client(shop).create(TASK)
    assert (answer.status, list(answer.body)) == (200, ["taskId"])
    assert ID.fullmatch(answer.body["taskId"])


@pytest.mark.parametrize(
    "name,model,reported,five_seconds",
    [
        ("seedance-20", "seedance-2.0", "seedance20-video-generation", 200),
        ("z video", "z-video", "z video", 100),
        ("sora2", "sora-2", "sora2", 200),
        ("sora2 pro", "sora-2-pro", "sora2 pro", 500),
        ("grok-imagine-video", "grok-imagine-video", "grok-imagine-video", 200),
    ],
)
async def test_the_model_is_named_within_the_workflow(
    shop: Storefront, name: str, model: str, reported: str, five_seconds: int
) -> None:
    assert (await Client(shop).task(name)).status == 200
    assert (order(shop).generation.model, order(shop).public_model) == (model, reported)
    task = await record(shop)
    assert (task["model"], task["creditsUsed"]) == (reported, five_seconds)


async def test_no_model_within_the_workflow_is_z_video(shop: Storefront) -> None:
    await Client(shop).create({"model": WORKFLOW, "inputs": {"prompt": "a"}})
    assert order(shop).generation.model == "z-video"


async def test_the_later_edition_names_the_model_at_the_top(shop: Storefront) -> None:
    answer = await Client(shop).create({"model": "seedance-20", "inputs": {"prompt": "a"}})
    assert answer.status == 200
    assert order(shop).generation.model == "seedance-2.0"
    assert (await record(shop))["model"] == "seedance-20"


@pytest.mark.parametrize(
    "name", ["seedance20-video-generation", "sora2", "z video", "", "Wan22-Video-Generation"]
)
async def test_every_other_workflow_is_unsupported(shop: Storefront, name: str) -> None:
    answer = await Client(shop).create({"model": name, "inputs": {"prompt": "a"}})
    assert (answer.status, answer.body) == (400, {"message": f"Unsupported NewAPI workflow: {name}"})


async def test_a_workflows_name_is_not_repeated_at_any_length(shop: Storefront) -> None:
    answer = await Client(shop).create({"model": "x" * 500_000, "inputs": {"prompt": "a"}})
    assert answer.body == {"message": "Unsupported NewAPI workflow: " + "x" * 100}
    lifted = {"model": "x" * 1_100_000, "inputs": {"prompt": "a"}}
    assert (await Client(shop).create(lifted)).body == {"message": "Unsupported NewAPI workflow: …"}


@pytest.mark.parametrize("odd", ["https://example.com/" + "a" * 2029, "https://example.com/\0"])
async def test_a_callback_that_jobs_could_not_take_is_400_and_named(shop: Storefront, odd: str) -> None:
    answer = await Client(shop).create({**TASK, "callBackUrl": odd})
    refused(answer, 400, "Invalid request parameters: callBackUrl must be a public HTTPS address.")
    assert shop.jobs.created == []


@pytest.mark.parametrize(
    "body",
    [
        {"model": WORKFLOW, "inputs": {"model": "seedance-2.0", "prompt": "a"}},
        {"model": WORKFLOW, "inputs": {"model": "", "prompt": "a"}},
        {"model": "seedance-20", "inputs": {"model": "sora2", "prompt": "a"}},
    ],
)
async def test_an_unknown_model_is_400(shop: Storefront, body: Any) -> None:
    refused(await Client(shop).create(body), 400, INPUTS)


# ---- fields -------------------------------------------------------------------------------------------------


async def test_what_is_left_out_has_the_documented_default(shop: Storefront) -> None:
    await Client(shop).task()
    assert order(shop).generation == jobs.Generation(
        kind=jobs.KIND_VIDEO, model="seedance-2.0", prompt="a", width=1280, height=720, duration_s=5
    )
    request = order(shop)
    assert (request.sku, request.quantity, request.id_prefix) == ("seedance-20.second", 5, "task")


async def test_jobs_is_told_whose_task_it_is_and_how_its_end_is_told(shop: Storefront) -> None:
    client = Client(shop, key_of("seedance2pro", test=True))
    await client.create({**TASK, "callBackUrl": "https://example.com/hook"}, key="k-1")
    request = order(shop)
    assert (request.customer_id, request.mode, request.storefront) == (
        "cus_1",
        jobs.MODE_TEST,
        "seedance2pro",
    )
    assert request.idempotency_key == "k-1"
    assert (request.callback_url, request.webhook_form_id) == (
        "https://example.com/hook",
        "form-of-seedance2pro",
    )


@pytest.mark.parametrize(
    "resolution,pixels",
    [
        ("720x720", (720, 720)),
        ("720x960", (720, 960)),
        ("960x720", (960, 720)),
        ("1280x720", (1280, 720)),
        ("720x1280", (720, 1280)),
    ],
)
async def test_a_resolution_is_pixels(shop: Storefront, resolution: str, pixels: tuple[int, int]) -> None:
    await Client(shop).task(resolution=resolution)
    assert (order(shop).generation.width, order(shop).generation.height) == pixels


@pytest.mark.parametrize("duration", ["7s", "7", 7, "07s"])
async def test_a_duration_is_spelled_in_three_ways(shop: Storefront, duration: Any) -> None:
    assert (await Client(shop).task(duration=duration)).status == 200
    assert (order(shop).generation.duration_s, order(shop).quantity) == (7, 7)


@pytest.mark.parametrize(
    "inputs",
    [
        {"duration": "3s"},
        {"duration": "16s"},
        {"duration": 3},
        {"duration": 16},
        {"duration": -5},
        {"duration": 5.0},
        {"duration": True},
        {"duration": None},
        {"duration": ""},
        {"duration": "5 s"},
        {"duration": "5.5s"},
        {"duration": "\u0665s"},
        {"duration": "9" * 5000},
        {"resolution": "1920x1080"},
        {"resolution": "720p"},
        {"videoInputMode": "text"},
        {"prompt": ""},
        {"prompt": " "},
        {"prompt": 5},
        {"prompt": "a" * 4001},
        {"prompt": "a\x07"},
        {"urls": A},
        {"urls": [5]},
        {"urls": [A, B, C]},
        {"urls": ["http://example.com/a.png"]},
        {"urls": ["https://localhost/a.png"]},
        {"videoUrls": [A]},
        {"videoInputMode": "reference", "urls": [A] * 10},
        {"videoInputMode": "reference", "videoUrls": [A] * 4},
        {"videoInputMode": "reference", "videoUrls": ["data:video/mp4;base64,QUJD"]},
    ],
)
async def test_a_wrong_input_is_400_and_named(shop: Storefront, inputs: dict[str, Any]) -> None:
    answer = await Client(shop).task(**inputs)
    refused(answer, 400, INPUTS)
    assert f"inputs.{list(inputs)[-1]}" in answer.body["message"]
    assert shop.jobs.created == []


@pytest.mark.parametrize(
    "body,word",
    [
        ({"inputs": {"prompt": "a"}}, "model"),
        ({"model": WORKFLOW}, "inputs"),
        ({"model": WORKFLOW, "inputs": []}, "inputs"),
        ({"model": 5, "inputs": {"prompt": "a"}}, "model"),
        ({**TASK, "callBackUrl": 5}, "callBackUrl"),
        ({**TASK, "callBackUrl": ""}, "callBackUrl"),
        (b"{", "JSON"),
        (b"[]", "object"),
        (b"", "JSON"),
    ],
)
async def test_a_wrong_body_is_400_and_says_what(shop: Storefront, body: Any, word: str) -> None:
    answer = await Client(shop).create(body)
    refused(answer, 400, PARAMETERS)
    assert word in answer.body["message"]


async def test_a_missing_prompt_is_an_input(shop: Storefront) -> None:
    refused(await Client(shop).create({"model": WORKFLOW, "inputs": {}}), 400, INPUTS)


async def test_unknown_fields_are_ignored(shop: Storefront) -> None:
    inputs = {**TASK["inputs"], "fps": "many"}  # type: ignore[dict-item]
    assert (await Client(shop).create({**TASK, "inputs": inputs, "n": {}})).status == 200


# ---- references ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [{}, {"videoInputMode": "keyframe"}])
@pytest.mark.parametrize(
    "urls,expected", [([A], [(A, "FIRST_FRAME")]), ([A, B], [(A, "FIRST_FRAME"), (B, "LAST_FRAME")])]
)
async def test_key_frames_are_the_first_and_the_last(
    shop: Storefront, mode: dict[str, str], urls: list[str], expected: list[tuple[str, str]]
) -> None:
    assert (await Client(shop).task(urls=urls, **mode)).status == 200
    assert roles(shop) == expected
    assert order(shop).sku == "seedance-20.second"


async def test_references_are_followed_in_the_order_that_the_prompt_means(shop: Storefront) -> None:
    prompt = "@1 moves as in @3, in the light of @2"
    answer = await Client(shop).task(
        prompt=prompt, videoInputMode="reference", urls=[A, B], videoUrls=[C], duration="5s"
    )
    assert answer.status == 200
    assert roles(shop) == [(A, "IMAGE"), (B, "IMAGE"), (C, "VIDEO")]
    assert order(shop).generation.prompt == "@Image1 moves as in @Video1, in the light of @Image2"
    assert (await record(shop))["creditsUsed"] == 450


@pytest.mark.parametrize(
    "written,meant",
    [
        ("@1,@2.", "@Image1,@Video1."),
        ("\u8ba9@1\u50cf@2\u90a3\u6837\u8d70", "\u8ba9@Image1\u50cf@Video1\u90a3\u6837\u8d70"),
        ("(@1)'s", "(@Image1)'s"),
        ("@0 @3 @01 @100", "@0 @3 @01 @100"),
        ("me@1.com @1st @1.5 @@1 @1_a", "me@1.com @1st @1.5 @@1 @1_a"),
    ],
)
async def test_only_what_means_a_reference_is_one(shop: Storefront, written: str, meant: str) -> None:
    await Client(shop).task(prompt=written, videoInputMode="reference", urls=[A], videoUrls=[B])
    assert order(shop).generation.prompt == meant


async def test_a_prompt_of_nothing_but_references_stays_one_that_models_take(shop: Storefront) -> None:
    answer = await Client(shop).task(prompt="@1 " * 1333, videoInputMode="reference", urls=[A])
    assert answer.status == 200
    assert len(order(shop).generation.prompt) < 5_000


async def test_key_frames_are_not_spoken_of_by_number(shop: Storefront) -> None:
    await Client(shop).task(prompt="@1 opens", urls=[A])
    assert order(shop).generation.prompt == "@1 opens"


async def test_as_many_references_as_are_promised_are_taken(shop: Storefront) -> None:
    answer = await Client(shop).task(videoInputMode="reference", urls=[A] * 9, videoUrls=[B] * 3)
    assert answer.status == 200
    limits = order(shop).generation.reference_limits
    assert (limits.images, limits.videos, limits.audios) == (9, 3, 0)


async def test_to_follow_nothing_costs_what_text_costs(shop: Storefront) -> None:
    await Client(shop).task(videoInputMode="reference")
    assert (await record(shop))["creditsUsed"] == 200


async def test_only_seedance_follows_references(shop: Storefront) -> None:
    refused(await Client(shop).task("z video", videoInputMode="reference", urls=[A]), 400, INPUTS)
    assert (await Client(shop).task("z video", videoInputMode="keyframe", urls=[A])).status == 200


async def test_images_may_be_inline(shop: Storefront) -> None:
    answer = await Client(shop).task(urls=["data:image/png;base64,QUJD"])
    assert answer.status == 200
    assert list(shop.pool.staged.values()) == [b"ABC"]


# ---- idempotency --------------------------------------------------------------------------------------------


async def test_without_a_key_every_request_makes_a_task(shop: Storefront) -> None:
    assert len({(await Client(shop).create(TASK)).body["taskId"] for _ in range(2)}) == 2


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"duration": 5},
        {"duration": "5"},
        {"resolution": "1280x720"},
        {"videoInputMode": "keyframe", "urls": []},
        {"prompt": " a paper boat "},
    ],
)
async def test_the_same_request_gets_the_first_task(shop: Storefront, inputs: dict[str, Any]) -> None:
    client = Client(shop)
    first = await client.create(TASK, key="order-1")
    given = {**TASK["inputs"], **inputs}  # type: ignore[dict-item]
    again = await client.create({**TASK, "inputs": given, "x": 1}, key="order-1")
    assert (again.status, again.body) == (200, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    "body",
    [
        {**TASK, "callBackUrl": A},
        {"model": "seedance-20", "inputs": TASK["inputs"]},
        {**TASK, "inputs": {**TASK["inputs"], "duration": 6}},  # type: ignore[dict-item]
        {**TASK, "inputs": {**TASK["inputs"], "urls": [A]}},  # type: ignore[dict-item]
    ],
)
async def test_a_key_used_with_another_request_is_a_conflict(shop: Storefront, body: Any) -> None:
    client = Client(shop)
    await client.create(TASK, key="order-1")
    refused(
        await client.create(body, key="order-1"),
        409,
        "Idempotency key already used with different parameters",
    )
