"""One road through each contract: how a job is made, where everything about it can be read, and what says that it has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Body = Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True)
class Road:
    """`reads` are paths in which {id} stands for the job; the first of them tells the status. `kind` is for people."""

    storefront: str
    kind: str
    path: str
    body: Body
    job_id: Callable[[Any], Any]
    status: Callable[[Any], str]
    reads: tuple[str, ...]
    succeeded: str
    failed: str

    def __str__(self) -> str:
        return f"{self.storefront}, {self.kind}"


def _leonardo(kind: str, path: str, **more: Any) -> Road:
    return Road(
        "leonardo",
        kind,
        path,
        lambda prompt: {"prompt": prompt, **more},
        lambda answer: answer["jobId"],
        lambda answer: str(answer["status"]),
        ("/v1/jobs/{id}", "/v1/jobs/{id}/result", "/v1/usage"),
        "complete",
        "failed",
    )


def _imaginelab(kind: str, model: str) -> Road:
    return Road(
        "imaginelab",
        kind,
        "/api/v1/generations",
        lambda prompt: {"generation_type": kind, "model_name": model, "prompt": prompt},
        lambda answer: answer["id"],
        lambda answer: str(answer["status"]),
        (
            "/api/v1/generations/{id}/status",
            "/api/v1/generations/{id}",
            "/api/v1/generations",
            "/api/v1/generations/models",
            "/api/v1/credits/wallet",
        ),
        "completed",
        "failed",
    )


ROADS: Final = (
    _leonardo("image", "/v1/images/generate"),
    _leonardo("video", "/v1/videos/generate", duration=4, motionHasAudio=True),
    Road(
        "seedancee2",
        "video",
        "/v1/videos/generations",
        lambda prompt: {
            "model": "mini",
            "input": {"prompt": prompt, "duration": 4, "resolution": "480p", "return_last_frame": True},
        },
        lambda answer: answer["data"]["id"],
        lambda answer: str(answer["data"]["status"]),
        ("/v1/videos/generations/{id}", "/v1/videos/generations", "/v1/models", "/v1/usage"),
        "completed",
        "failed",
    ),
    Road(
        "seedance2pro",
        "video",
        "/api/v1/jobs/createTask",
        lambda prompt: {
            "model": "wan22-video-generation",
            "inputs": {"model": "seedance-20", "prompt": prompt, "duration": "4s"},
        },
        lambda answer: answer["taskId"],
        lambda answer: str(answer["status"]),
        ("/api/v1/jobs/recordInfo?taskId={id}",),
        "success",
        "fail",
    ),
    Road(
        "loova",
        "video",
        "/api/v1/video/seedance-2",
        lambda prompt: {"prompt": prompt, "duration": 4},
        lambda answer: answer["data"]["task_id"],
        lambda answer: str(answer["data"]["status"]),
        ("/api/v1/tasks?task_id={id}", "/api/v1/credits"),
        "succeeded",
        "failed",
    ),
    _imaginelab("image", "seedream-5.0-lite"),
    _imaginelab("video", "seedance-2.0-fast"),
    _imaginelab("voice", "eleven-multilingual-v2"),
    _imaginelab("music", "eleven-music-v1"),
    _imaginelab("infographic", "infographic-1"),
    _imaginelab("text", "gpt-5-mini"),
)
