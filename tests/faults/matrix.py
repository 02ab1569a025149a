"""Who dies where, doing what: every point of a job's life before and after every commit and every call.

A test holds this list to the code: a point that is passed and not listed fails it, and so does one that is listed and not
passed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.faults import matrix_deeds as deeds
from tests.faults import matrix_hooks as hooks
from tests.faults import matrix_wishes as wishes
from tests.faults.matrix_deeds import Actor

Deed = Callable[[Actor], Awaitable[None]]
SIDES: Final = ("before", "after")


@dataclass(frozen=True, slots=True)
class Death:
    """`process` dies when it first passes `point` while `deed` is done.

    again: where the process that comes after it dies too, while it puts things right.
    short: in the slice that `make test` runs: every state and every service.
    doubtful: nobody can know whether the submission arrived, and with several replicas somebody may still be sending it.
    """

    process: str
    point: str
    deed: Deed
    short: bool = False
    doubtful: bool = False
    again: str = ""

    @property
    def name(self) -> str:
        again = f"-and-{self.again}" if self.again else ""
        return f"{self.process}.{self.point}{again}-{self.deed.__name__}"


def _deaths(process: str, deed: Deed, *names: str) -> Iterator[Death]:
    """Both sides of each name; `name!before` marks the side that is in the slice."""
    for marked in names:
        name, _, short = marked.partition("!")
        for side in SIDES:
            point = f"{name}.{side}"
            lies_at = {f"{process}.{point}", f"{process}.{point}-{deed.__name__}"}
            yield Death(process, point, deed, short == side, bool(lies_at & _DOUBTFUL))


# The pool alone knows whether a submission left; between these two commits its death leaves that open.
_DOUBTFUL: Final = frozenset(
    {
        "provider_pool.commit.attempt_submitting.after",
        "provider_pool.provider.submit.before",
        "provider_pool.provider.submit.after",
        "provider_pool.commit.attempt_running.before",
        "provider_pool.commit.attempt_unknown.before",
        "provider_pool.commit.attempt_failed.before-be_refused_at_the_provider",
    }
)

_GATEWAY: Final = (
    *_deaths("gateway", deeds.come_new, "call.billing.Authenticate"),
    *_deaths("gateway", deeds.succeed, "call.jobs.CreateJob!after", "call.jobs.GetJob"),
    *_deaths("gateway", deeds.read_everything, "call.billing.GetBalance"),
    *_deaths(
        "gateway",
        deeds.follow_a_picture,
        "call.provider_pool.StageReference",
        "call.provider_pool.DropReferences",
    ),
)

_JOBS: Final = (
    *_deaths(
        "jobs",
        deeds.succeed,
        "commit.admitting!after",
        "call.billing.Hold!after",
        "call.provider_pool.Lease!after",
        "commit.leased!after",
        "commit.submitting!after",
        "call.provider_pool.Submit!before",
        "commit.running!before",
        "call.provider_pool.PollMany",
        "commit.collecting!before",
        "call.provider_pool.Collect!after",
        "commit.settling!after",
        "call.billing.Capture!after",
        "commit.completed!before",
        "call.provider_pool.ReleaseLease!before",
        "commit.claim",
        "commit.reap",
        "call.billing.ListHolds",
        "call.billing.GetChargedTotals",
        "call.provider_pool.ListLeases",
        "call.provider_pool.ListOpenAttempts",
    ),
    *_deaths(
        "jobs",
        deeds.fail_at_the_provider,
        "call.billing.Release!before",
        "commit.failed!after",
        "call.provider_pool.CloseAttempts",
    ),
    *_deaths("jobs", deeds.queue, "commit.queued!before"),
    *_deaths(
        "jobs", deeds.lose_the_answer, "commit.unknown!before", "call.provider_pool.ResolveUnknown!after"
    ),
    *_deaths("jobs", deeds.be_sent_on, "commit.queued", "call.provider_pool.ReleaseLease"),
    *_deaths("jobs", deeds.have_no_credit, "commit.removed!before", "call.billing.Hold"),
    *_deaths("jobs", deeds.find_no_account, "call.billing.Release", "commit.removed"),
    *_deaths(
        "jobs",
        deeds.take_long,
        "call.billing.ExtendHolds",
        "call.provider_pool.RenewLeases",
        "call.provider_pool.Poll",
    ),
    *_deaths("jobs", deeds.repeat_a_request, "commit.admitting", "commit.leased"),
    *_deaths(
        "jobs",
        deeds.follow_a_picture,
        "call.provider_pool.PrepareReferences!after",
        "call.provider_pool.DropReferences",
    ),
    *_deaths(
        "jobs",
        hooks.be_told,
        "commit.completed",
        "webhook.post!after",
        "commit.webhook_delivered!before",
    ),
    *_deaths("jobs", hooks.be_told_late, "commit.webhook_waiting!after", "commit.webhook_claim!after"),
    *_deaths("jobs", hooks.be_told_in_vain, "commit.webhook_dead!before"),
    *_deaths(
        "jobs",
        wishes.be_canceled,
        "commit.cancel_asked!after",
        "commit.settling",
        "call.billing.Release",
        "commit.canceled!before",
        "call.provider_pool.CloseAttempts",
    ),
    *_deaths(
        "jobs",
        wishes.be_deleted,
        "commit.delete_asked!after",
        "call.provider_pool.DeleteMedia!after",
        "commit.scrub!before",
    ),
)

_BILLING: Final = (
    *_deaths("billing", deeds.succeed, "commit.hold!after", "commit.capture!before"),
    *_deaths("billing", deeds.fail_at_the_provider, "commit.release!after"),
    *_deaths("billing", deeds.have_no_credit, "commit.hold"),
    *_deaths("billing", deeds.take_long, "commit.extend_holds"),
    *_deaths("billing", deeds.top_up, "commit.grant"),
)

_POOL: Final = (
    *_deaths(
        "provider_pool",
        deeds.succeed,
        "commit.lease!after",
        "commit.attempt_submitting",
        "provider.submit!after",
        "commit.attempt_running",
        "provider.poll!before",
        "commit.attempt_succeeded!before",
        "provider.fetch",
        "media.publish!after",
        "commit.attempt_collected!before",
        "provider.forget",
        "commit.give_back_lease!before",
        "commit.attempt_orphaned",
    ),
    *_deaths("provider_pool", deeds.fail_at_the_provider, "commit.attempt_failed!after"),
    *_deaths("provider_pool", deeds.be_refused_at_the_provider, "commit.attempt_failed"),
    *_deaths("provider_pool", deeds.yield_rubbish, "commit.attempt_failed"),
    *_deaths(
        "provider_pool",
        deeds.lose_the_answer,
        "commit.attempt_unknown!after",
        "provider.list",
        "commit.attempt_adopted!before",
    ),
    *_deaths("provider_pool", deeds.lose_the_request, "commit.attempt_abandoned!before"),
    *_deaths("provider_pool", deeds.take_long, "commit.renew_lease"),
    *_deaths("provider_pool", wishes.be_canceled, "provider.cancel!after"),
    *_deaths("provider_pool", wishes.be_deleted, "media.delete!after"),
    *_deaths("provider_pool", deeds.follow_a_picture, "references.publish", "references.drop"),
    *_deaths("provider_pool", deeds.follow_an_address, "references.fetch!after", "references.publish"),
)


def _heirs(process: str, point: str, deed: Deed, *again: str) -> Iterator[Death]:
    """A death at `point`, and another at each of these while the next process puts right what the first one left."""
    doubtful = f"{process}.{point}" in _DOUBTFUL
    for marked in again:
        name, _, short = marked.partition("!")
        for side in SIDES:
            yield Death(process, point, deed, short == side, doubtful, f"{name}.{side}")


_HEIRS: Final = (
    *_heirs(
        "jobs",
        "commit.admitting.after",
        deeds.succeed,
        "commit.claim!after",
        "call.provider_pool.ReleaseLease",
        "call.billing.Release",
        "commit.removed!before",
    ),
    *_heirs("jobs", "commit.running.after", deeds.outlive_its_owner, "commit.touched"),
    *_heirs("jobs", "commit.collecting.after", deeds.succeed, "commit.settling"),
    *_heirs("jobs", "commit.submitting.after", deeds.succeed, "call.provider_pool.Submit"),
    *_heirs("gateway", "call.jobs.CreateJob.after", deeds.succeed, "call.jobs.PutWebhookForm"),
    *_heirs("provider_pool", "provider.submit.after", deeds.succeed, "commit.attempt_orphaned!after"),
)

# At a start, after a death or at a farewell only.
_ONCE_IN_A_LIFE: Final = (
    "jobs.commit.touched",
    "jobs.commit.take_over",
    "jobs.commit.hand_over",
    # What a gateway asks before its first create.
    "gateway.call.jobs.PutWebhookForm",
)
PASSED_OTHERWISE: Final = frozenset(f"{name}.{side}" for name in _ONCE_IN_A_LIFE for side in SIDES)

DEATHS: Final = (*_GATEWAY, *_JOBS, *_BILLING, *_POOL, *_HEIRS)
POINTS: Final = frozenset(f"{death.process}.{death.point}" for death in DEATHS)
# On the second engine the slice keeps the commits: they are what differs.
SHORT_COMMITS: Final = tuple(death for death in DEATHS if death.short and death.point.startswith("commit."))
DEEDS: Final = tuple(dict.fromkeys(death.deed for death in DEATHS))
