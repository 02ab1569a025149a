"""Amounts as customers read them."""

from __future__ import annotations


def credits_of(millis: int) -> int | float:
    """Thousandths of a credit as most contracts write them: whole where they are, else a decimal."""
    return millis // 1000 if millis % 1000 == 0 else millis / 1000
