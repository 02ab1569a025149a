"""What an ElevenLabs account can look up: its subscription, voices, models and history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.simulator.accounts import Account
from services.simulator.elevenlabs.voices import SPEECH_MODELS, VOICES
from services.simulator.tasks import State, Task

_MONTH_S: Final = 30 * 24 * 3600
# What an account without an end shows as its limit.
_ENDLESS: Final = 1_000_000_000
_STATUSES: Final = {"free": "free"}


def subscription(account: Account, now_ms: int) -> dict[str, Any]:
    """The counters: what is left is the limit less the count."""
    count = int(account.charged)
    limit = _ENDLESS if account.balance is None else count + int(account.balance)
    return {
        "tier": account.plan,
        "character_count": count,
        "character_limit": limit,
        "max_character_limit_extension": 0,
        "max_credit_limit_extension": account.options.get("max_credit_limit_extension", 0),
        "can_extend_character_limit": account.plan != "free",
        "allowed_to_extend_character_limit": False,
        "next_character_count_reset_unix": (now_ms // 1000 // _MONTH_S + 1) * _MONTH_S,
        "voice_slots_used": 0,
        "professional_voice_slots_used": 0,
        "professional_voice_slots_used_in_workspace": 0,
        "voice_limit": 30,
        "max_voice_add_edits": 95,
        "voice_add_edit_counter": 0,
        "professional_voice_limit": 1,
        "can_extend_voice_limit": False,
        "can_use_instant_voice_cloning": True,
        "can_use_professional_voice_cloning": True,
        "currency": "usd",
        "current_overage": {"amount": "0", "currency": "usd"},
        "status": account.options.get("status", _STATUSES.get(account.plan, "active")),
        "billing_period": "monthly_period",
        "character_refresh_period": "monthly_period",
        "next_invoice": None,
        "open_invoices": [],
        "has_open_invoices": False,
    }


def voices() -> dict[str, Any]:
    """One page with every voice."""
    listed = [
        {"voice_id": voice_id, "name": name, "category": "premade", "labels": {}, "is_legacy": False}
        for voice_id, name in VOICES.items()
    ]
    return {"voices": listed, "has_more": False, "total_count": len(listed), "next_page_token": None}


def models() -> list[dict[str, Any]]:
    """Every model that speaks."""
    return [
        {
            "model_id": model_id,
            "name": model.name,
            "can_do_text_to_speech": True,
            "can_do_voice_conversion": False,
            "max_characters_request_free_user": 2_500,
            "max_characters_request_subscribed_user": model.characters_limit,
            "maximum_text_length_per_request": model.characters_limit,
            "token_cost_factor": float(model.credits),
            "model_rates": {"character_cost_multiplier": float(model.credits)},
            "languages": [{"language_id": "en", "name": "English"}],
        }
        for model_id, model in SPEECH_MODELS.items()
    ]


def history(tasks: Sequence[Task], after: str | None, size: int) -> dict[str, Any]:
    """What was spoken, newest first, from behind `after`."""
    done = [task for task in tasks if task.state is State.SUCCEEDED]
    names = [task.id for task in done]
    start = names.index(after) + 1 if after in names else 0
    page = done[start : start + size]
    return {
        "history": [_item(task) for task in page],
        "last_history_item_id": page[-1].id if page else None,
        "has_more": start + size < len(done),
        "scanned_until": None,
    }


def _item(task: Task) -> dict[str, Any]:
    voice_id = str(task.facts["voice_id"])
    return {
        "history_item_id": task.id,
        "request_id": task.id,
        "voice_id": voice_id,
        "voice_name": VOICES.get(voice_id),
        "voice_category": "premade",
        "model_id": task.model,
        "text": task.prompt,
        "date_unix": task.created_ms // 1000,
        "character_count_change_from": 0,
        "character_count_change_to": int(task.charged),
        "content_type": task.drawings[0].content_type,
        "state": "created",
        "source": "TTS",
        "settings": None,
    }


def plan(body: Mapping[str, Any]) -> dict[str, Any]:
    """A composition plan for a prompt, which costs nothing."""
    section: dict[str, Any] = {
        "section_name": "Verse",
        "positive_local_styles": [],
        "negative_local_styles": [],
        "duration_ms": body.get("music_length_ms") or 30_000,
        "lines": [],
    }
    styles = [word for word in str(body["prompt"]).split(",")[:5] if word.strip()]
    return {"positive_global_styles": styles, "negative_global_styles": [], "sections": [section]}


def alignment(task: Task) -> dict[str, Any]:
    """When each character is spoken: all take the same time."""
    letters = list(task.prompt)
    each_s = float(task.facts["seconds"]) / max(len(letters), 1)
    return {
        "characters": letters,
        "character_start_times_seconds": [round(number * each_s, 3) for number in range(len(letters))],
        "character_end_times_seconds": [round((number + 1) * each_s, 3) for number in range(len(letters))],
    }
