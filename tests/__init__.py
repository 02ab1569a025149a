"""Tests, one folder for each kind; CONTRIBUTING.md says which is which."""
