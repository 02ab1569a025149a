"""Tells customers that their jobs have ended: forms, the outbox, signatures, the sender and its log."""
