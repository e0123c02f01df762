"""Filters: conditions on the records that a search may find."""
