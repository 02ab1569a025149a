"""When things happen: deadlines, backoff, the rhythm of polling. Chance is an argument, like time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.jobs.job import Kind

# Seconds between polls of one job where the provider gives no hint, as multiples of the poll interval.
_POLL_RHYTHM: Final = (1.0, 2.0, 5.0)
# One in five: enough to spread jobs that were submitted together.
_JITTER: Final = 0.2
# A hint beyond this is not believed: a job that ended is noticed within a minute.
_LONGEST_POLL_S: Final = 60.0
_BACKOFF_FIRST_S: Final = 0.2
_BACKOFF_LIMIT_S: Final = 30.0
# A hold lives 15 minutes and nobody extends it while its job is parked: five leave room for a restart.
LONGEST_RETRY_MS: Final = 5 * 60_000
_RETRY_FIRST_MS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Timing:
    """Every wait of the service, in seconds; the defaults are production's."""

    worker_ttl_s: float = 15.0
    poll_interval_s: float = 1.0
    queue_deadline_s: float = 30 * 60
    image_deadline_s: float = 5 * 60
    video_deadline_s: float = 30 * 60
    other_deadline_s: float = 10 * 60
    # An answer younger than this is not asked for again by a synchronising read.
    sync_interval_s: float = 2.0
    # The last known answer is given for so long while the provider cannot be reached.
    stale_after_s: float = 60.0
    hold_ttl_s: float = 15 * 60
    lease_ttl_s: float = 15 * 60
    renewal_s: float = 3 * 60
    reconcile_s: float = 60.0
    # After a comparison that could not be made whole, because a service was away.
    retry_reconcile_s: float = 5.0
    # Nothing younger than this is reconciled: its owner is still busy with it.
    reconcile_age_s: float = 2 * 60
    # Jobs that this worker owns and has not in memory are looked for so often; the second look counts.
    recall_s: float = 10.0
    # Wishes that were heard by other replicas are looked for so often.
    wishes_s: float = 1.0
    # Deleted jobs that have ended are looked for so often.
    deletions_s: float = 2.0
    # Queued jobs are offered again so often, should an announcement of capacity have been missed.
    dispatch_s: float = 5.0
    # Progress is written at most so often.
    progress_s: float = 5.0
    # An accepted job that got an account rests so long before its first step.
    first_step_s: float = 0.0
    # Waits beyond this are in the row, not in memory.
    park_after_s: float = 60.0

    def run_allowance_ms(self, kind: Kind) -> int:
        """How long a job of this kind may take from its first lease."""
        by_kind = {Kind.IMAGE: self.image_deadline_s, Kind.VIDEO: self.video_deadline_s}
        return int(by_kind.get(kind, self.other_deadline_s) * 1000)


def spread(delay_s: float, jitter: float) -> float:
    """`delay_s` give or take a fifth."""
    return delay_s * (1 - _JITTER + 2 * _JITTER * jitter)


def poll_delay_s(poll_after_ms: int, polls: int, interval_s: float, jitter: float) -> float:
    """Seconds until the next poll: the provider's hint, else 1, 2, 5, 5, … intervals."""
    if poll_after_ms > 0:
        return min(_LONGEST_POLL_S, poll_after_ms / 1000)
    return spread(_POLL_RHYTHM[min(polls, len(_POLL_RHYTHM) - 1)] * interval_s, jitter)


def longest_rhythm_s(interval_s: float) -> float:
    """The longest time between polls of one job where the provider gives no hint, without jitter."""
    return _POLL_RHYTHM[-1] * interval_s


def backoff_s(failures: int, jitter: float, limit_s: float = _BACKOFF_LIMIT_S) -> float:
    """Seconds until a call that failed `failures` times in a row is made again."""
    return spread(min(limit_s, _BACKOFF_FIRST_S * 2.0 ** min(failures, 16)), jitter)


def retry_after_ms(asked_ms: int, attempts: int, jitter: float) -> int:
    """Until a failed attempt is followed by another on the same account: as asked, at least with backoff."""
    own_ms = int(spread(_RETRY_FIRST_MS * 2 ** max(0, attempts - 1), jitter))
    return min(LONGEST_RETRY_MS, max(asked_ms, own_ms))
