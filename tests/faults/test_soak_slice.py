"""A few hundred jobs on the simulated providers while everything breaks; `make soak` plays twenty thousand."""

from __future__ import annotations

import json

import pytest

from tests.faults.storm_load import seeded
from tests.soak.run import Soak, soaked

pytestmark = [pytest.mark.faults, pytest.mark.faults_full, pytest.mark.timeout(900)]


async def test_every_charge_is_one_finished_job_and_every_paid_task_is_accounted_for() -> None:
    seed = seeded().randrange(10**6)
    soak = Soak(jobs=300, accounts=8, seed=seed, at_once=60, between_kills_s=(4.0, 10.0), engine="sqlite")
    report = await soaked(soak)
    assert report.wrong == [], json.dumps(report.as_json(), indent=1)
    assert report.findings.jobs == 300
    assert report.findings.completed > 200
    assert report.findings.unexplained <= 0
    assert report.kills > 0
    assert report.account_deaths > 0
