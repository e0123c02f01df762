"""Conditions on records: which ones a search may find."""
