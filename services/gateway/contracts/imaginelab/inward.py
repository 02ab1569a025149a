"""Inward: wire to gRPC requests. Pure."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from services.gateway import errors, reading
from services.gateway.contracts.imaginelab import settings as kinds
from services.gateway.contracts.imaginelab.settings import KINDS, MODELS, Settings
from services.gateway.contracts.imaginelab.wire import (
    GenerationRequest,
    GenerationType,
    HistoryQuery,
    ModelName,
    Status,
)
from services.gen.jobs.v1 import jobs_pb2 as pb

ID_PREFIX: Final = "gen"
_PROMPT_LIMIT: Final = 4_000
_PROJECT_LIMIT: Final = 100
_ID: Final = re.compile(r"[1-9][0-9]{0,15}")
# Numbers that every client's JSON keeps exactly.
_ID_LIMIT: Final = 2**53

_STAGES: Final[dict[Status, tuple[pb.Stage.ValueType, ...]]] = {
    "pending": (pb.STAGE_WAITING, pb.STAGE_ACCOUNT_CHOSEN),
    "processing": (pb.STAGE_AT_PROVIDER,),
    "completed": (pb.STAGE_ENDED_WELL,),
    "failed": (pb.STAGE_ENDED_BADLY,),
}
_decoder = msgspec.json.Decoder(GenerationRequest)


class Asked(msgspec.Struct, frozen=True):
    """A request with its defaults, as it is carried out and compared with a repeat of it."""

    generation_type: GenerationType
    model_name: ModelName
    prompt: str
    settings: Settings
    project_id: str


class Echo(msgspec.Struct, frozen=True):
    """What a generation is shown with, beside what the jobs service knows of it."""

    user_id: int
    prompt: str


def read_generation(body: bytes) -> Asked:
    """The request in `body`, trimmed and checked. Raises MALFORMED_REQUEST."""
    wire = reading.parsed(body, _decoder)
    if MODELS[wire.model_name] != wire.generation_type:
        raise errors.malformed_request(
            f"model_name must be a model of generation_type {wire.generation_type}.", "model_name"
        )
    return Asked(
        wire.generation_type,
        wire.model_name,
        reading.text(wire.prompt, "prompt", _PROMPT_LIMIT),
        kinds.read_settings(wire.generation_type, wire.settings or {}),
        _project(wire.project_id),
    )


def _project(project_id: int | str | None) -> str:
    if project_id is None:
        return ""
    return reading.text(str(project_id), "project_id", _PROJECT_LIMIT)


def generation_job(asked: Asked, echo: Echo) -> pb.CreateJobRequest:
    """What to make and what to charge; who and under which key comes later."""
    generation = pb.Generation(
        kind=KINDS[asked.generation_type].kind, model=asked.model_name, prompt=asked.prompt
    )
    kinds.fill(generation, asked.settings)
    return pb.CreateJobRequest(
        generation=generation,
        sku=kinds.sku_of(asked.model_name),
        quantity=1,
        id_prefix=ID_PREFIX,
        public_model=asked.model_name,
        echo=msgspec.json.encode(echo),
        project_id=asked.project_id,
        numbered=True,
    )


def generation_id(value: str) -> int:
    """The number in a path. Raises JOB_NOT_FOUND without asking anybody for what can be none."""
    if not _ID.fullmatch(value) or int(value) >= _ID_LIMIT:
        raise errors.job_not_found()
    return int(value)


def page_of(query: HistoryQuery) -> pb.ListJobsRequest:
    """Which jobs a page of the history has; whose comes later. Raises MALFORMED_REQUEST."""
    return pb.ListJobsRequest(
        limit=query.page_size,
        skip=(query.page - 1) * query.page_size,
        kind=KINDS[query.generation_type].kind if query.generation_type else pb.KIND_UNSPECIFIED,
        stages=_STAGES[query.status] if query.status else (),
        project_id=_project(query.project_id.strip() or None),
        count=True,
    )
