"""Making API keys, new or in place of others: the only place where a key is known as it is."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from services.billing import admission, keys
from services.billing.keys import Key
from services.billing.prices import Storefronts
from services.billing.store import customers
from services.billing.store import keys as key_rows
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.ids import new_id
from services.chassis.settings import Secret
from services.gen.billing.v1 import billing_pb2 as pb


class KeyMaker:
    """Makes keys under the pepper in use."""

    def __init__(self, database: Database, storefronts: Storefronts, pepper: Secret, clock: Clock) -> None:
        self._database = database
        self._storefronts = storefronts
        self._pepper = pepper
        self._clock = clock

    async def make(self, request: pb.CreateKeyRequest) -> tuple[Key, str]:
        """A key of a customer as it is stored, and the key itself. Raises ServiceError CUSTOMER_NOT_FOUND."""
        customer_id = admission.identifier("customer_id", request.customer_id)
        customer = await self._database.read(lambda connection: customers.find(connection, customer_id))
        api_key = self._api_key(customer.storefront, admission.mode(request.mode))
        key = admission.new_key(request, keys.hint(api_key), self._clock.now_ms())
        digest = keys.digest(api_key, self._pepper)
        await self._database.write(lambda connection: key_rows.add(connection, key, digest))
        return key, api_key

    async def rotate(self, request: pb.RotateKeyRequest) -> tuple[Key, str]:
        """A key like another, which ends after the overlap. Raises ServiceError KEY_NOT_FOUND."""
        key_id = admission.identifier("key_id", request.key_id)
        overlap_ms = admission.within("overlap_ms", request.overlap_ms, 0, admission.MAX_OVERLAP_MS)
        return await self._database.write(lambda connection: self._rotate(connection, key_id, overlap_ms))

    def _rotate(self, connection: Connection, key_id: str, overlap_ms: int) -> tuple[Key, str]:
        now_ms = self._clock.now_ms()
        successor, storefront = key_rows.rotate(connection, key_id, new_id("key"), now_ms, overlap_ms)
        api_key = self._api_key(storefront, successor.mode)
        key = replace(successor, hint=keys.hint(api_key))
        key_rows.add(connection, key, keys.digest(api_key, self._pepper))
        return key, api_key

    def _api_key(self, storefront: str, mode: str) -> str:
        return keys.make(self._storefronts.named(storefront).key_prefix(mode))
