"""Jobs on the wire: the proto's messages to the engine's values and back."""

from __future__ import annotations

from typing import Final

from services.gen.jobs.v1 import jobs_pb2 as pb
from services.jobs import errors
from services.jobs.intake import Order
from services.jobs.job import Generation, Job, JobState, Kind, Mode, Output
from services.jobs.reference_messages import references_of
from services.jobs.store import Event, JobFilter

_STATES: Final = {state: pb.JobState.Value(f"JOB_STATE_{state.name}") for state in JobState}
_STATE_OF: Final = {number: state for state, number in _STATES.items()}
_MODES: Final[dict[Mode, pb.Mode.ValueType]] = {"live": pb.MODE_LIVE, "test": pb.MODE_TEST}
_MODE_OF: Final[dict[int, Mode]] = {number: mode for mode, number in _MODES.items()}

_ID_LIMIT_CHARS: Final = 100
_PROMPT_LIMIT_CHARS: Final = 100_000
_LIST_LIMIT: Final = 1_000
_LIST_DEFAULT: Final = 100


def order_of(request: pb.CreateJobRequest) -> Order:
    """Raises INVALID_REQUEST that names the first field that cannot be used."""
    _require_id("customer_id", request.customer_id)
    _require_id("storefront", request.storefront)
    _require_id("sku", request.sku)
    key = request.idempotency_key
    if not 1 <= len(key) <= 255 or not (key.isascii() and key.isprintable()):
        raise errors.invalid_request("idempotency_key", "must be 1 to 255 printable ASCII characters")
    prefix = request.id_prefix
    if not (1 <= len(prefix) <= 20 and prefix.isascii() and prefix.isalnum()):
        raise errors.invalid_request("id_prefix", "must be 1 to 20 letters and digits")
    if not request.HasField("limits"):
        raise errors.invalid_request("limits", "is missing")
    if request.quantity < 1:
        raise errors.invalid_request("quantity", "must be at least 1")
    return Order(
        customer_id=request.customer_id,
        mode=mode_of(request.mode),
        storefront=request.storefront,
        idempotency_key=key,
        fingerprint=request.fingerprint.hex(),
        generation=_generation_of(request.generation),
        sku=request.sku,
        quantity=request.quantity,
        running_limit=request.limits.running_jobs,
        queued_limit=request.limits.queued_jobs,
        id_prefix=prefix,
    )


def _require_id(field: str, text: str) -> None:
    # Neither blank nor control characters: the parts of an admission key are joined with spaces.
    if not 1 <= len(text) <= _ID_LIMIT_CHARS or not (text.isascii() and text.isprintable()) or " " in text:
        raise errors.invalid_request(field, f"must be 1 to {_ID_LIMIT_CHARS} printable ASCII characters")


def mode_of(number: int) -> Mode:
    """Raises INVALID_REQUEST for neither live nor test."""
    mode = _MODE_OF.get(number)
    if mode is None:
        raise errors.invalid_request("mode", "must be live or test")
    return mode


def _generation_of(asked: pb.Generation) -> Generation:
    try:
        kind = Kind(asked.kind)
    except ValueError:
        raise errors.invalid_request("generation.kind", "is not a known kind") from None
    if not asked.model or len(asked.model) > _ID_LIMIT_CHARS:
        raise errors.invalid_request("generation.model", "is missing or too long")
    if len(asked.prompt) > _PROMPT_LIMIT_CHARS:
        raise errors.invalid_request("generation.prompt", "is too long")
    references, limits = references_of(asked)
    return Generation(
        kind=kind,
        model=asked.model,
        prompt=asked.prompt,
        width=asked.width,
        height=asked.height,
        duration_s=asked.duration_s,
        audio=asked.audio,
        quality=asked.quality,
        seed=asked.seed if asked.HasField("seed") else None,
        references=references,
        reference_limits=limits,
    )


def filter_of(request: pb.ListJobsRequest) -> JobFilter:
    """Raises INVALID_REQUEST for what cannot be listed."""
    if request.limit > _LIST_LIMIT:
        raise errors.invalid_request("limit", f"must be at most {_LIST_LIMIT}")
    if len(request.job_ids) > _LIST_LIMIT:
        raise errors.invalid_request("job_ids", f"must be at most {_LIST_LIMIT}")
    return JobFilter(
        customer_id=request.customer_id,
        mode=mode_of(request.mode) if request.mode else "",
        state=_STATE_OF.get(request.state),
        job_ids=tuple(request.job_ids),
        before_job_id=request.before_job_id,
        limit=request.limit or _LIST_DEFAULT,
    )


def message_of(job: Job) -> pb.Job:
    """The job as it is shown."""
    return pb.Job(
        job_id=job.job_id,
        customer_id=job.customer_id,
        mode=_MODES[job.mode],
        storefront=job.storefront,
        state=_STATES[job.state],
        stage=pb.Stage.ValueType(int(job.stage)),
        kind=pb.Kind.ValueType(int(job.generation.kind)),
        model=job.generation.model,
        progress=job.progress,
        quoted_millis=job.quoted_millis,
        charged_millis=job.charged_millis,
        refunded_millis=job.refunded_millis,
        failure=pb.FailureReason.ValueType(int(job.failure) if job.state is JobState.FAILED else 0),
        outputs=[_output_message(output) for output in job.outputs] if job.ended else [],
        created_at_ms=job.created_at_ms,
        updated_at_ms=job.updated_at_ms,
        ended_at_ms=job.ended_at_ms,
        media_expires_at_ms=job.media_expires_at_ms if job.ended else 0,
        attempts=job.attempt_number,
    )


def _output_message(output: Output) -> pb.Output:
    return pb.Output(
        role=pb.Output.Role.ValueType(output.role),
        object_key=output.object_key,
        content_type=output.content_type,
        size_bytes=output.size_bytes,
        sha256=output.sha256,
        width=output.width,
        height=output.height,
        duration_ms=output.duration_ms,
    )


def event_message(event: Event) -> pb.JobEvent:
    """One line of a job's history."""
    return pb.JobEvent(
        sequence=event.sequence,
        epoch=event.epoch,
        state=_STATES[event.state],
        worker_id=event.worker_id,
        at_ms=event.at_ms,
    )
