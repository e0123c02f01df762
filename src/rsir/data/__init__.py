"""Labelled image sets: read, split, transformed, sampled, and generated."""
