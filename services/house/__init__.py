"""Starts and keeps all of Atelier on one machine; the embedded default."""
