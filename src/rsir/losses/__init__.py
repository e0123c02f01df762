"""Losses: pure functions of a batch's outputs and targets."""
