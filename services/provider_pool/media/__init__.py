"""Outputs as files: checked, cleaned, stored under their keys, and removed."""
