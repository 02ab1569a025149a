"""Customers of every storefront, so many jobs in flight at a time, each asked for under a name that its prompt carries."""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.faults.matrix_deeds import picture
from tests.faults.scene import Scene
from tests.house import Customer
from tests.integration.usage_buyers import Buyer, Promise, parsed
from tests.leak.roads import ROADS, Road

# Of one length, so that none is the beginning of another where a prompt is cut.
NAME: Final = re.compile(r"soak-\d{6}")
_CREDITS: Final = 1_000_000_000
# A customer's patience in polling; a house under load has better to do than to be asked.
_LOOK_S: Final = (0.8, 2.0)
# The longest a job may take: what is in doubt as a process dies is looked for when it has not been heard of for a while, and
# a task that hangs is given up after a minute.
_ENDED_WITHIN_S: Final = 600.0
# Nobody but the sandbox serves these.
_UNSERVED: Final = frozenset({("imaginelab", "image")})
_ROADS: Final = tuple(road for road in ROADS if (road.storefront, road.kind) not in _UNSERVED)
# Pictures come quickly and make most of what people ask for.
_WEIGHTS: Final = {"image": 8, "video": 2, "voice": 2, "music": 1, "infographic": 2, "text": 3}
# Of the jobs that may follow a picture some do: few pictures, so that accounts meet those again that they already hold.
_FOLLOWS: Final = 0.25
_PICTURES: Final = 12
_FOLLOWING: Final = frozenset({"/v1/images/generate", "/v1/videos/generate"})


@dataclass
class Buyers:
    """One live wallet of each storefront."""

    buyers: dict[str, Buyer]
    ended: int = 0

    @property
    def promises(self) -> list[Promise]:
        return [promise for buyer in self.buyers.values() for promise in buyer.promises]

    @classmethod
    async def of(cls, scene: Scene) -> Buyers:
        made = {}
        for storefront in sorted({road.storefront for road in _ROADS}):
            customer_id, key, _ = await scene.inside.customer(_CREDITS, storefront=storefront)
            client = Customer(scene.session, scene.base_url, key)
            made[storefront] = Buyer(storefront, "live", customer_id, client)
        return cls(made)

    async def ask_for(self, count: int, at_once: int, chance: random.Random) -> None:
        """So many jobs, each seen to its end. Raises AssertionError, and TimeoutError of one that does not end."""
        numbers = itertools.count(1)
        roads = chance.choices(_ROADS, [_WEIGHTS[road.kind] for road in _ROADS], k=count)

        async def worker() -> None:
            while (number := next(numbers)) <= count:
                await self._one(roads[number - 1], f"soak-{number:06}", chance)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, count)):
                group.create_task(worker())

    async def _one(self, road: Road, name: str, chance: random.Random) -> None:
        buyer = self.buyers[road.storefront]
        body = {**road.body(f"{name}: a red boat in the harbour"), **_picture(road, chance)}
        promise = await buyer.ask(road, name, body)
        assert promise is not None, f"{name}: the wallet could not pay"
        path = road.reads[0].format(id=promise.job_id)
        async with asyncio.timeout(_ENDED_WITHIN_S):
            while not _has_ended(road, parsed((await buyer.answered("GET", path)).body)):
                await asyncio.sleep(chance.uniform(*_LOOK_S))
        await buyer.see_the_end(promise)
        self.ended += 1


def _picture(road: Road, chance: random.Random) -> Mapping[str, Any]:
    if road.path not in _FOLLOWING or chance.random() >= _FOLLOWS:
        return {}
    content = base64.b64encode(picture(f"soak-{chance.randrange(_PICTURES)}")).decode()
    return {"referenceImage": {"imageUrl": f"data:image/png;base64,{content}", "strength": "MID"}}


def _has_ended(road: Road, body: Any) -> bool:
    return road.status(body) in {road.succeeded, road.failed}


def share_that_ended_well(promises: Sequence[Promise]) -> float:
    return sum(promise.word == promise.road.succeeded for promise in promises) / max(1, len(promises))
