"""What wallets were charged in all, for whoever keeps a count of its own: added up from the journal, a bounded part a call.

Nothing of it is on the way of a hold or a capture: the sums follow the journal when they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from services.billing import errors
from services.billing.operations import WalletId
from services.billing.store import totals as store
from services.billing.store.totals import Total
from services.chassis.database import Database

# Half a second of one reader; a busy wallet grows by less between two looks a minute apart.
ENTRIES_A_CALL = 200_000
# Adding up fewer again is cheaper than a commit for them.
REMEMBERED_FROM = 100


async def charged_totals(
    database: Database, wallets: Sequence[WalletId], entries_a_call: int = ENTRIES_A_CALL
) -> list[Total]:
    """The sums of those of these wallets that exist; one with `behind` has more history than one call adds up."""
    kept = await database.read(lambda connection: store.remembered(connection, wallets))
    after = {total.wallet: total for total in kept}
    for part, limit in _parts(kept, entries_a_call):
        read = await database.read(partial(store.carried_on, totals=part, limit=limit))
        after |= {total.wallet: total for total in read}
    worth = 1 if any(total.behind for total in after.values()) else REMEMBERED_FROM
    advanced = [
        after[total.wallet] for total in kept if after[total.wallet].sequence - total.sequence >= worth
    ]
    if advanced:
        await database.write(lambda connection: store.remember(connection, advanced))
    return list(after.values())


async def topped_up_millis(database: Database, wallet: WalletId) -> int:
    """All that was ever bought or given to a wallet, in millis. Raises ServiceError CUSTOMER_NOT_FOUND."""
    while True:
        totals = await charged_totals(database, [wallet], ENTRIES_A_CALL)
        if not totals:
            raise errors.customer_not_found(wallet.customer_id)
        # Of a long history that nobody has added up yet every turn remembers a part.
        if not totals[0].behind:
            return totals[0].topped_up_millis


def _parts(kept: Sequence[Total], entries_a_call: int) -> list[tuple[list[Total], int]]:
    """Which wallets to carry on in this call, and by how many entries each at most.

    First all that are up to date afterwards, then the one that is not with what it may still read.
    """
    whole: list[Total] = []
    left = entries_a_call
    for total in sorted(kept, key=lambda total: total.behind):
        if total.behind > left:
            return [(whole, entries_a_call), ([total], left)] if left else [(whole, entries_a_call)]
        left -= total.behind
        if total.behind:
            whole.append(total)
    return [(whole, entries_a_call)]
