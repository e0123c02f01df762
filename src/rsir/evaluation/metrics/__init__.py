"""Measures of ranked results. Each measure states its definition.

groups.py: the tie groups that all measures are computed from; binary.py: measures of plain
relevance; graded.py: measures of labels in common; curves.py: curves over all queries.
"""
