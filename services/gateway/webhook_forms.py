"""Makes known to the jobs service how each storefront spells its webhooks, once for each life of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from services.gen.jobs.v1 import jobs_pb2


class WebhookForms:
    """The ids of forms that are known over there. Simultaneous askers for one share the question.

    own_urls: by storefront, what links to media begin with where that is not the service's own address.
    """

    def __init__(
        self,
        put: Callable[[jobs_pb2.WebhookForm], Awaitable[str]],
        own_urls: Mapping[str, str] | None = None,
    ) -> None:
        self._put = put
        self._own_urls = own_urls or {}
        # By identity: forms are constants of their contracts, and hashing one costs more than what it is looked up for.
        self._ids: dict[int, str] = {}
        self._asking: dict[int, asyncio.Task[str]] = {}

    async def id_of(self, form: jobs_pb2.WebhookForm) -> str:
        """What jobs call the form in their requests. Raises ServiceError while jobs are away."""
        known = self._ids.get(id(form))
        if known is not None:
            return known
        task = self._asking.get(id(form))
        if task is None:
            task = self._asking[id(form)] = asyncio.create_task(self._made_known(form))
            task.add_done_callback(lambda done: self._asked(id(form), done))
        # Shielded: who asked first may go away, the others still wait.
        return await asyncio.shield(task)

    def forget(self, form: jobs_pb2.WebhookForm) -> None:
        """The form is not known over there any more: the next request makes it known again."""
        self._ids.pop(id(form), None)

    async def _made_known(self, form: jobs_pb2.WebhookForm) -> str:
        told = jobs_pb2.WebhookForm(public_url=self._own_urls.get(form.storefront, ""))
        told.MergeFrom(form)
        form_id = self._ids[id(form)] = await self._put(told)
        return form_id

    def _asked(self, form: int, done: asyncio.Task[str]) -> None:
        self._asking.pop(form, None)
        if not done.cancelled():
            # Looked at here, so that a question whose askers all left is not reported as a lost exception.
            done.exception()
