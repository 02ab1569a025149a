"""Webhooks in the database, as the rest of the service sees them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from sqlalchemy import Connection

from services.chassis import crash_points
from services.chassis.database import Database
from services.chassis.group_commit import GroupCommit
from services.chassis.sealing import SealingKeys
from services.chassis.set_statements import insert_rows
from services.chassis.settings import Secret
from services.jobs.webhooks import deliveries, endpoints
from services.jobs.webhooks.deliveries import Attempt, Attempted, Delivery, DeliveryFilter
from services.jobs.webhooks.endpoints import Endpoint
from services.jobs.webhooks.forms import Form
from services.jobs.webhooks.lanes import Due
from services.jobs.webhooks.outbox import load_forms
from services.jobs.webhooks.tables import FORMS


class WebhookStore:
    """See the modules beside this one for what each call promises."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._forms: dict[str, Form] = {}
        self._attempts: GroupCommit[Attempted, None] = GroupCommit(
            database, deliveries.apply_attempts, name="webhook-attempts", kind=deliveries.kind_of
        )

    async def close(self) -> None:
        """Finishes what was accepted; the database itself stays open."""
        await self._attempts.close()

    async def put_form(self, form: Form, now_ms: int) -> str:
        """Makes a form known; once more is the same."""
        form_id = form.form_id
        if form_id not in self._forms:
            row = {
                "form_id": form_id,
                "storefront": form.storefront,
                "form": form.encoded().decode(),
                "created_at_ms": now_ms,
            }
            await self._database.write(
                lambda connection: insert_rows(connection, FORMS, [row], ignore_conflicts=True)
            )
            self._forms[form_id] = form
        return form_id

    async def form(self, form_id: str) -> Form | None:
        """A form that is known. It never changes, so it is read once."""
        known = self._forms.get(form_id)
        if known is None:
            found = await self._database.read(lambda connection: load_forms(connection, [form_id]))
            self._forms |= found
            known = found.get(form_id)
        return known

    async def endpoint(self, customer_id: str) -> Endpoint:
        """An empty one where none was ever set."""
        return (await self.endpoints([customer_id])).get(customer_id, Endpoint(customer_id))

    async def endpoints(self, customers: Collection[str]) -> dict[str, Endpoint]:
        return await self._database.read(lambda connection: endpoints.load(connection, customers))

    async def set_url(self, customer_id: str, url: str) -> Endpoint:
        return await self._database.write(lambda connection: endpoints.set_url(connection, customer_id, url))

    async def rotate(
        self, keys: SealingKeys, customer_id: str, overlap_ms: int, now_ms: int
    ) -> tuple[Endpoint, Secret]:
        return await self._database.write(
            lambda connection: endpoints.rotate(connection, keys, customer_id, overlap_ms, now_ms)
        )

    async def with_secrets(
        self, keys: SealingKeys, customers: Collection[str], now_ms: int
    ) -> dict[str, Endpoint]:
        """The endpoints of these customers, each with a secret, made where there was none."""
        found = await self.endpoints(customers)
        missing = [one for one in customers if not found.get(one, Endpoint(one)).secret]
        if missing:
            found |= await self._database.write(
                lambda connection: endpoints.make_missing(connection, keys, missing, now_ms)
            )
        return found

    async def due(
        self, now_ms: int, lines: Collection[str], customers: Collection[str], most: int
    ) -> list[Due]:
        return await self._database.read(
            lambda connection: deliveries.due(connection, now_ms, lines, customers, most)
        )

    async def claim(self, worker_id: str, taken: Sequence[Due], now_ms: int) -> list[Delivery]:
        ids = [one.delivery_id for one in taken]

        def work(connection: Connection) -> list[Delivery]:
            return deliveries.claim(connection, worker_id, ids, now_ms)

        return await crash_points.committed(self._database.write, "webhook_claim", work)

    async def owned(self, worker_id: str) -> dict[str, int]:
        """What this worker sends, and the epoch of each."""
        return await self._database.read(lambda connection: deliveries.owned(connection, worker_id))

    async def free(self, worker_id: str, strays: Mapping[str, int]) -> None:
        """Lets go of those of them that are still this worker's, under these epochs."""
        await self._database.write(lambda connection: deliveries.free(connection, worker_id, strays))

    async def commit(self, attempted: Attempted) -> None:
        """Raises LeaseLostError where somebody else sends this delivery now."""
        await self._attempts.submit(attempted)

    async def delivery(self, delivery_id: str) -> Delivery | None:
        return await self._database.read(lambda connection: deliveries.load(connection, delivery_id))

    async def list_deliveries(self, wanted: DeliveryFilter) -> list[Delivery]:
        return await self._database.read(lambda connection: deliveries.list_deliveries(connection, wanted))

    async def list_attempts(self, delivery_id: str) -> Iterable[Attempt] | None:
        return await self._database.read(lambda connection: deliveries.list_attempts(connection, delivery_id))

    async def resend(self, delivery_id: str, now_ms: int) -> Delivery | None:
        return await self._database.write(
            lambda connection: deliveries.resend(connection, delivery_id, now_ms)
        )

    async def oldest_due_ms(self, now_ms: int) -> int:
        return await self._database.read(lambda connection: deliveries.oldest_due_ms(connection, now_ms))

    async def sweep(self, ended_before_ms: int) -> int:
        return await self._database.write(lambda connection: deliveries.sweep(connection, ended_before_ms))
