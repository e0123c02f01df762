"""Ranked relevance → numbers. Each measure says which definition it is.

groups.py: what all of them are computed from; binary.py: relevant or not; graded.py: labels in
common; curves.py: over all queries.
"""
