"""Proving API keys and access tokens against the database, many at once, and remembering when keys were last used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.billing import errors, keys
from services.billing.access_tokens import AccessTokens, looks_like_token
from services.billing.keys import Key, KeyOwner
from services.billing.lookups import Lookups
from services.billing.store import keys as key_rows
from services.billing.store import users as user_rows
from services.billing.users import TokenOwner
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.settings import Secret

# Uses not yet written; beyond it the newest are forgotten, which costs accuracy and nothing else.
USES_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class Secrets:
    """What proves callers: the peppers of API keys, the one in use first, and the ring of access tokens."""

    peppers: Sequence[Secret]
    tokens: AccessTokens


class Authenticator:
    """Says whose a key or a token is. It keeps no answer, so a revoked one is refused from the next call on."""

    def __init__(self, database: Database, prefixes: frozenset[str], secrets: Secrets, clock: Clock) -> None:
        self._database = database
        self._keys: Lookups[str, KeyOwner] = Lookups(self._read_keys)
        self._users: Lookups[int, TokenOwner] = Lookups(self._read_users)
        self._prefixes = prefixes
        self._secrets = secrets
        self._clock = clock
        self._used_at_ms: dict[str, int] = {}
        self._renewed: dict[str, str] = {}

    async def owner(self, credential: str) -> KeyOwner | TokenOwner:
        """Raises ServiceError INVALID_API_KEY, the same for every cause; CUSTOMER_INACTIVE to who holds a good key."""
        if looks_like_token(credential):
            return await self._token_owner(credential)
        if not keys.is_well_formed(credential, self._prefixes):
            raise errors.invalid_api_key()
        digests = [keys.digest(credential, pepper) for pepper in self._secrets.peppers]
        owner = await (self._keys.find(digests[0]) if len(digests) == 1 else self._keys.find_first(digests))
        now_ms = self._clock.now_ms()
        if owner is None or not keys.may_be_used(owner, digests, now_ms):
            raise errors.invalid_api_key()
        if not owner.customer_active:
            raise errors.customer_inactive(owner.key.customer_id)
        self._note_use(owner, digests[0], now_ms)
        return owner

    async def write_uses(self) -> None:
        """Write the uses noted since the last time, and the digests of keys that were made under an older pepper."""
        used_at_ms, self._used_at_ms = self._used_at_ms, {}
        renewed, self._renewed = self._renewed, {}
        if used_at_ms:
            await self._database.write(lambda connection: key_rows.record_uses(connection, used_at_ms))
        if renewed:
            await self._database.write(lambda connection: key_rows.renew_digests(connection, renewed))

    async def _token_owner(self, token: str) -> TokenOwner:
        claims = self._secrets.tokens.read(token, self._clock.now_ms())
        owner = None if claims is None else await self._users.find(claims.user_id)
        if claims is None or owner is None:
            raise errors.invalid_api_key()
        login = owner.login
        known = (login.user.storefront, login.token_version)
        if known != (claims.storefront, claims.version) or not login.customer_active:
            raise errors.invalid_api_key()
        return owner

    def _note_use(self, owner: KeyOwner, digest: str, now_ms: int) -> None:
        key: Key = owner.key
        if keys.use_is_worth_recording(key, now_ms) and len(self._used_at_ms) < USES_LIMIT:
            self._used_at_ms[key.key_id] = now_ms
        if owner.digest != digest and len(self._renewed) < USES_LIMIT:
            self._renewed[key.key_id] = digest

    async def _read_keys(self, digests: Sequence[str]) -> Mapping[str, KeyOwner]:
        return await self._database.read(lambda connection: key_rows.owners(connection, digests))

    async def _read_users(self, user_ids: Sequence[int]) -> Mapping[int, TokenOwner]:
        return await self._database.read(lambda connection: user_rows.owners(connection, user_ids))
