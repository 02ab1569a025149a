"""What `check-image` assumes of a storefront is what the storefront sends with its requests."""

from __future__ import annotations

import pytest

from services.gateway.contracts.leonardo import inward
from services.gateway.reference_media import FULL, ReferenceLimits
from services.provider_pool.references.check_image import CONTRACTS


@pytest.mark.parametrize(
    ("contract", "sent"),
    [(name, inward.REFERENCE_LIMITS if name == "leonardo" else FULL) for name in CONTRACTS],
)
def test_check_image_knows_the_limits_of_each_contract(contract: str, sent: ReferenceLimits) -> None:
    known = CONTRACTS[contract]
    assert set(sent.image_formats) == known.formats
    assert sent.image_bytes == known.bytes
    assert sent.first_frame_of_animations == known.first_frame_of_animations
