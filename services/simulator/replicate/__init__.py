"""Replicate: predictions of official models, files, and webhooks in the manner of Standard Webhooks."""
