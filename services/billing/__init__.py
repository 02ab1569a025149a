"""Customers, their API keys, and their money."""
