"""Jobs on the wire: the proto's messages to the engine's values and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Final

from services.gen.jobs.v1 import jobs_pb2 as pb
from services.jobs import errors
from services.jobs.intake import Order
from services.jobs.job import Generation, Job, JobState, Kind, Mode, Output, Stage
from services.jobs.reference_messages import references_of
from services.jobs.store import Event, JobFilter
from services.jobs.usage import DAY_MS, Counts, Span, UsageKey

_STATES: Final = {state: pb.JobState.Value(f"JOB_STATE_{state.name}") for state in JobState}
_STATE_OF: Final = {number: state for state, number in _STATES.items()}
_ENDED_BADLY: Final = frozenset({JobState.FAILED, JobState.CANCELED})
_MODES: Final[dict[Mode, pb.Mode.ValueType]] = {"live": pb.MODE_LIVE, "test": pb.MODE_TEST}
_MODE_OF: Final[dict[int, Mode]] = {number: mode for mode, number in _MODES.items()}

_ID_LIMIT_CHARS: Final = 100
_PROMPT_LIMIT_CHARS: Final = 100_000
_URL_LIMIT_CHARS: Final = 2_048
# It lies in the job's row, and travels with every read of it.
_ECHO_LIMIT_BYTES: Final = 65_536
_LIST_LIMIT: Final = 1_000
_LIST_DEFAULT: Final = 100
# What is left out is read all the same; beyond this a list is gone on with after its last job.
_SKIP_LIMIT: Final = 1_000_000
_STAGES: Final = frozenset(map(int, Stage))
_EPOCH: Final = date(1970, 1, 1).toordinal()
# Every job there is, and every one that will be, was made before this.
_FOR_EVER_MS: Final = 10**9 * DAY_MS


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
        public_model=_text("public_model", request.public_model) or request.generation.model,
        echo=_echo_of(request.echo),
        project_id=_text("project_id", request.project_id),
        callback_url=_text("callback_url", request.callback_url, _URL_LIMIT_CHARS),
        webhook_form_id=_text("webhook_form_id", request.webhook_form_id),
        key_id=_text("key_id", request.key_id),
        numbered=request.numbered,
    )


def _text(field: str, text: str, limit: int = _ID_LIMIT_CHARS) -> str:
    if len(text) > limit or "\0" in text:
        raise errors.invalid_request(field, f"must be at most {limit} characters, none of them NUL")
    return text


def _echo_of(given: bytes) -> str:
    if len(given) > _ECHO_LIMIT_BYTES:
        raise errors.invalid_request("echo", f"must be at most {_ECHO_LIMIT_BYTES} bytes")
    try:
        return _text("echo", given.decode(), _ECHO_LIMIT_BYTES)
    except UnicodeDecodeError:
        raise errors.invalid_request("echo", "must be a text") from None


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
    kind = _kind_of("generation.kind", asked.kind)
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
        adaptive_ratio=asked.adaptive_ratio,
        watermark=asked.watermark,
        last_frame=asked.last_frame,
        voice=_text("generation.voice", asked.voice),
        format=_text("generation.format", asked.format),
        style=_text("generation.style", asked.style),
        max_words=asked.max_words,
    )


def filter_of(request: pb.ListJobsRequest) -> JobFilter:
    """Raises INVALID_REQUEST for what cannot be listed."""
    if request.limit > _LIST_LIMIT:
        raise errors.invalid_request("limit", f"must be at most {_LIST_LIMIT}")
    if request.skip > _SKIP_LIMIT:
        raise errors.invalid_request("skip", f"must be at most {_SKIP_LIMIT}")
    if len(request.job_ids) > _LIST_LIMIT:
        raise errors.invalid_request("job_ids", f"must be at most {_LIST_LIMIT}")
    return JobFilter(
        customer_id=request.customer_id,
        mode=mode_of(request.mode) if request.mode else "",
        state=_STATE_OF.get(request.state),
        job_ids=tuple(request.job_ids),
        before_job_id=request.before_job_id,
        limit=request.limit or _LIST_DEFAULT,
        stages=frozenset(map(_stage_of, request.stages)),
        kind=_kind_of("kind", request.kind) if request.kind else None,
        project_id=_text("project_id", request.project_id),
        skip=request.skip,
    )


def _stage_of(number: int) -> Stage:
    if number == Stage.UNSPECIFIED or number not in _STAGES:
        raise errors.invalid_request("stages", "must be stages that there are")
    return Stage(number)


def _kind_of(field: str, number: int) -> Kind:
    try:
        return Kind(number)
    except ValueError:
        raise errors.invalid_request(field, "is not a known kind") from None


def span_of(request: pb.GetUsageRequest, now_ms: int) -> Span:
    """When the jobs were made that usage is asked of. Raises INVALID_REQUEST."""
    _require_id("customer_id", request.customer_id)
    if request.from_ms < 0 or request.before_ms < 0:
        raise errors.invalid_request("from_ms", "and before_ms must not be negative")
    # An end that is not in the past cuts no day short.
    open_end = request.before_ms == 0 or request.before_ms > now_ms
    return Span(request.from_ms, _FOR_EVER_MS if open_end else request.before_ms)


def usage_message(found: Mapping[UsageKey, Counts]) -> pb.GetUsageResponse:
    """Newest day first, then by model."""
    ordered = sorted(found.items(), key=lambda item: (-item[0].day, item[0].public_model))
    return pb.GetUsageResponse(rows=[_usage_row(key, counts) for key, counts in ordered])


def _usage_row(key: UsageKey, counts: Counts) -> pb.UsageRow:
    return pb.UsageRow(
        day=date.fromordinal(_EPOCH + key.day).isoformat(),
        public_model=key.public_model,
        pending_jobs=counts.pending,
        processing_jobs=counts.processing,
        completed_jobs=counts.completed,
        failed_jobs=counts.failed,
        charged_millis=counts.charged_millis,
        refunded_millis=counts.refunded_millis,
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
        failure=pb.FailureReason.ValueType(int(job.failure) if job.state in _ENDED_BADLY else 0),
        outputs=[_output_message(output) for output in job.outputs] if job.ended else [],
        created_at_ms=job.created_at_ms,
        updated_at_ms=job.updated_at_ms,
        ended_at_ms=job.ended_at_ms,
        media_expires_at_ms=job.media_expires_at_ms if job.ended else 0,
        attempts=job.attempt_number,
        public_number=job.public_number,
        public_model=job.public_model,
        echo=job.echo.encode(),
        project_id=job.project_id,
        cancel_asked=job.cancel_asked_at_ms > 0,
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
        text=output.text,
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
