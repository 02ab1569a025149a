"""Rows in and rows out: plain functions of a connection, the same on both engines. No rule lives here."""
