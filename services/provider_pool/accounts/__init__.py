"""Accounts at providers: what is known of them, their credentials, their health, and what they still have."""
