"""What `check-image` assumes of a storefront is what the storefront sends with its requests."""

from __future__ import annotations

from services.gateway.contracts.leonardo import inward
from services.provider_pool.references.check_image import CONTRACTS


def test_check_image_knows_the_limits_of_leonardo() -> None:
    sent, known = inward.REFERENCE_LIMITS, CONTRACTS["leonardo"]
    assert set(sent.formats) == known.formats
    assert sent.image_bytes == known.bytes
    assert sent.first_frame_of_animations == known.first_frame_of_animations
