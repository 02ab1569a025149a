"""Runway: Seedance among others, prepaid in credits, with the balance and every task's price in its answers."""
