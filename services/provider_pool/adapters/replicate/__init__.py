"""Replicate: predictions of official models."""
