"""The promise to tell: deliveries are made in the very transaction in which their job ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select, update

from services.chassis.ids import new_id
from services.chassis.prepared_statements import prepared
from services.chassis.set_statements import insert_rows, member_of, member_of_named
from services.jobs.job import Job, JobState
from services.jobs.webhooks.addresses import receiver_of
from services.jobs.webhooks.forms import Filled, Form, fill
from services.jobs.webhooks.schedule import State
from services.jobs.webhooks.tables import DELIVERIES, ENDPOINTS, FORMS

ID_PREFIX: Final = "whd"

_ENDPOINTS = prepared(
    select(ENDPOINTS.c.customer_id, ENDPOINTS.c.url).where(
        member_of_named(ENDPOINTS.c.customer_id, "customer_ids")
    )
)
_FORMS = prepared(select(FORMS.c.form_id, FORMS.c.form).where(member_of_named(FORMS.c.form_id, "form_ids")))
# There are as many as contracts, and as many again for each change of one.
_FORMS_LIMIT: Final = 256
_body = msgspec.json.Decoder(list[str])


class Outbox:
    """What a batch of ended jobs has to tell, and whom. Shared by the thread that writes and the loop that sends."""

    def __init__(self) -> None:
        self._forms: dict[str, Form] = {}
        self._made = False
        self._wake: Callable[[], None] = lambda: None

    def wakes(self, wake: Callable[[], None]) -> None:
        """What is called, on the loop, when there is something new to send."""
        self._wake = wake

    def committed(self) -> None:
        """A job's end is durable, and so is what `write` made for it."""
        if self._made:
            self._made = False
            self._wake()

    def write(self, connection: Connection, ended: Sequence[Job]) -> None:
        """Makes the deliveries of jobs that end in this transaction; where nobody is to be told, no statement."""
        telling = [job for job in ended if job.webhook_form_id]
        if not telling:
            return
        customers = sorted({job.customer_id for job in telling})
        endpoints = {row[0]: row[1] for row in _ENDPOINTS.rows(connection, customer_ids=customers)}
        told = [(job, url) for job in telling for url in _addresses(job, endpoints.get(job.customer_id, ""))]
        if not told:
            return
        forms = self._known(connection, {job.webhook_form_id for job, _ in told})
        rows = [
            _row(job, url, forms[job.webhook_form_id]) for job, url in told if job.webhook_form_id in forms
        ]
        insert_rows(connection, DELIVERIES, rows)
        self._made = self._made or bool(rows)

    def _known(self, connection: Connection, form_ids: set[str]) -> dict[str, Form]:
        known = self._forms if len(self._forms) < _FORMS_LIMIT else {}
        missing = sorted(form_ids - known.keys())
        if missing:
            # Replaced as a whole, because the loop looks at it too.
            known = self._forms = known | load_forms(connection, missing)
        return known


def load_forms(connection: Connection, form_ids: list[str]) -> dict[str, Form]:
    """Those of these forms that are known."""
    return (
        {row[0]: Form.decoded(row[1]) for row in _FORMS.rows(connection, form_ids=form_ids)}
        if form_ids
        else {}
    )


def _addresses(job: Job, endpoint: str) -> Iterator[str]:
    if job.callback_url:
        yield job.callback_url
    if endpoint and endpoint != job.callback_url:
        yield endpoint


def _row(job: Job, url: str, form: Form) -> dict[str, Any]:
    return {
        "delivery_id": new_id(ID_PREFIX),
        "job_id": job.job_id,
        "customer_id": job.customer_id,
        "form_id": job.webhook_form_id,
        "ending": "completed" if job.state is JobState.COMPLETED else "failed",
        "url": url,
        "receiver": receiver_of(url),
        "body": msgspec.json.encode(fill(form, job)).decode(),
        "media_expires_at_ms": job.media_expires_at_ms,
        "links_until_ms": 0,
        "state": State.WAITING.value,
        "owner": None,
        "epoch": 0,
        "attempts": 0,
        "tries": 0,
        "created_at_ms": job.ended_at_ms,
        "next_attempt_at_ms": job.ended_at_ms,
        "ended_at_ms": 0,
        "last_status": 0,
        "last_error": "",
    }


def body_of(text: str) -> Filled:
    """The body of a row."""
    return _body.decode(text)


def free_deliveries(connection: Connection, workers: Iterable[str]) -> None:
    """What these workers were sending is due again at once: nobody knows what of it arrived."""
    connection.execute(update(DELIVERIES).where(member_of(DELIVERIES.c.owner, workers)).values(owner=None))
