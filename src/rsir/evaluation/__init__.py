"""Evaluation: from embeddings and labels to measures and their statistics."""
