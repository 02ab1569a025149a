"""Every simulated provider."""

from __future__ import annotations

from services.simulator.ark.provider import Ark
from services.simulator.elevenlabs.provider import ElevenLabs
from services.simulator.fal.provider import Fal
from services.simulator.leonardo.provider import Leonardo
from services.simulator.openai.provider import OpenAi
from services.simulator.provider import Provider
from services.simulator.replicate.provider import Replicate
from services.simulator.runway.provider import Runway
from services.simulator.world import World


def all_providers(world: World) -> list[Provider]:
    """One of each, in one world."""
    return [
        Ark(world),
        ElevenLabs(world),
        Fal(world),
        Leonardo(world),
        OpenAi(world),
        Replicate(world),
        Runway(world),
    ]
