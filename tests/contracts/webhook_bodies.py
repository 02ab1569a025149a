"""What a webhook would say of a job: the storefront's form, filled in by the jobs service's own rules."""

from __future__ import annotations

from services.gen.jobs.v1 import jobs_pb2 as pb
from services.jobs.job import FailureReason, Job, JobState, Output
from services.jobs.messages import order_of
from services.jobs.webhooks import forms
from services.jobs.webhooks.messages import form_of


def told_of(form: pb.WebhookForm, job: pb.Job, request: pb.CreateJobRequest, *, link: str) -> bytes:
    """The body that tells of `job`, which `request` made and which has ended; `link` is where its media are."""
    order = order_of(request)
    well = job.stage == pb.STAGE_ENDED_WELL
    ended = Job(
        job_id=job.job_id,
        customer_id=job.customer_id,
        mode=order.mode,
        storefront=order.storefront,
        admission_key="",
        fingerprint=order.fingerprint,
        generation=order.generation,
        sku=order.sku,
        quantity=order.quantity,
        running_limit=1,
        created_at_ms=job.created_at_ms,
        queue_deadline_ms=0,
        state=JobState.COMPLETED if well else JobState.FAILED,
        updated_at_ms=job.updated_at_ms,
        ended_at_ms=job.ended_at_ms,
        quoted_millis=job.quoted_millis,
        charged_millis=job.charged_millis if well else 0,
        refunded_millis=0 if well else job.quoted_millis,
        failure=FailureReason(job.failure),
        outputs=tuple(map(_output, job.outputs)),
        public_number=job.public_number,
        public_model=job.public_model,
        echo=job.echo.decode(),
        project_id=job.project_id,
    )
    return forms.with_links(forms.fill(form_of(form), ended), lambda _: link)


def _output(output: pb.Output) -> Output:
    return Output(
        role=output.role,
        object_key=output.object_key,
        content_type=output.content_type,
        size_bytes=output.size_bytes,
        sha256=output.sha256,
        width=output.width,
        height=output.height,
        duration_ms=output.duration_ms,
        text=output.text,
    )
