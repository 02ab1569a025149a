"""The promise to tell: deliveries are made in the very transaction in which their job ends.

Where whoever ends the job has room to send them, they are its own from the start: nobody has to look for them, and no
second transaction claims them. If it dies, they are freed like everything else that it owned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec
from sqlalchemy import Connection, select, update

from services.chassis.ids import new_id
from services.chassis.prepared_statements import prepared
from services.chassis.set_statements import insert_rows, member_of, member_of_named
from services.jobs.job import Job, JobState
from services.jobs.webhooks.addresses import receiver_of
from services.jobs.webhooks.forms import Filled, Form, fill
from services.jobs.webhooks.lanes import Due
from services.jobs.webhooks.schedule import State, links_until_ms
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
# Ends that were written and then not committed leave what was made for them here until it is pushed out.
_MADE_LIMIT: Final = 10_000
_body = msgspec.json.Decoder(list[str])

Row = dict[str, Any]
"""One delivery, by the columns of its table."""


class Telling(Protocol):
    """Who sends what was made."""

    def has_room(self, due: Due) -> bool:
        """Whether it would be sent at once. Asked by the thread that writes; only a guess, so that it may be wrong."""
        ...

    def made(self, rows: Sequence[Row]) -> None:
        """These are durable. Called on the loop; those with an owner are this process's to send."""
        ...


class Outbox:
    """What a batch of ended jobs has to tell, and whom. Shared by the thread that writes and the loop that sends."""

    def __init__(self) -> None:
        self._forms: dict[str, Form] = {}
        self._made: dict[str, list[Row]] = {}
        self._sender: Telling | None = None

    def tells(self, sender: Telling) -> None:
        """From now on this is who sends what is made."""
        self._sender = sender

    def committed(self, job: Job) -> None:
        """The job's end is durable, and so is what `write` made for it."""
        made = self._made.pop(job.job_id, None)
        if made and self._sender is not None:
            self._sender.made(made)

    def write(self, connection: Connection, ended: Sequence[tuple[Job, str | None]]) -> None:
        """Makes the deliveries of jobs that end in this transaction; where nobody is to be told, no statement.

        With each job comes the worker that ends it, under whose fence all this is written.
        """
        telling = [(job, owner) for job, owner in ended if job.webhook_form_id]
        if not telling:
            return
        customers = sorted({job.customer_id for job, _ in telling})
        endpoints = {row[0]: row[1] for row in _ENDPOINTS.rows(connection, customer_ids=customers)}
        forms = self._known(connection, {job.webhook_form_id for job, _ in telling})
        rows: list[Row] = []
        for job, owner in telling:
            form = forms.get(job.webhook_form_id)
            addresses = _addresses(job, endpoints.get(job.customer_id, ""))
            made = [] if form is None else [self._row(job, url, form, owner) for url in addresses]
            self._remember(job.job_id, made)
            rows += made
        insert_rows(connection, DELIVERIES, rows)

    def _row(self, job: Job, url: str, form: Form, owner: str | None) -> Row:
        row = _row(job, url, form)
        due = Due(row["delivery_id"], job.customer_id, row["receiver"])
        if owner is None or self._sender is None or not self._sender.has_room(due):
            return row
        until_ms = links_until_ms(0, job.media_expires_at_ms, job.ended_at_ms)
        return row | {"owner": owner, "epoch": 1, "links_until_ms": until_ms}

    def _remember(self, job_id: str, made: list[Row]) -> None:
        if not made:
            return
        while len(self._made) >= _MADE_LIMIT:
            self._made.pop(next(iter(self._made)), None)
        self._made[job_id] = made

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


def _row(job: Job, url: str, form: Form) -> Row:
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
