"""What stands before a provider answers too, and knows nothing of accounts."""

from __future__ import annotations

import pytest

from services.provider_pool.adapters.ark import answers as ark
from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.elevenlabs import answers as elevenlabs
from services.provider_pool.adapters.fal import answers as fal
from services.provider_pool.adapters.interface import AccountRestricted, SubmissionUnknown, TransientFailure
from services.provider_pool.adapters.leonardo import answers as leonardo
from services.provider_pool.adapters.openai import answers as openai
from services.provider_pool.adapters.replicate import answers as replicate
from services.provider_pool.adapters.runway import answers as runway
from tests.clocks import T0_MS

READ = {
    "ark": ark,
    "elevenlabs": elevenlabs,
    "fal": fal,
    "leonardo": leonardo,
    "openai": openai,
    "replicate": replicate,
    "runway": runway,
}
PAGE = b"\n<!DOCTYPE html><title>Attention Required!</title>"


@pytest.mark.parametrize("provider", READ)
def test_a_gate_s_page_for_one_request_puts_no_account_out_of_service(provider: str) -> None:
    read = READ[provider]
    assert type(read.submit_error(HttpAnswer(403, {}, PAGE), T0_MS)) is TransientFailure
    assert type(read.read_error(HttpAnswer(403, {}, PAGE), T0_MS)) is TransientFailure
    assert type(read.submit_error(HttpAnswer(403, {}, b"{}"), T0_MS)) is AccountRestricted


@pytest.mark.parametrize("provider", READ)
def test_a_time_that_ran_out_leaves_a_submission_in_doubt(provider: str) -> None:
    assert type(READ[provider].submit_error(HttpAnswer(408), T0_MS)) is SubmissionUnknown
