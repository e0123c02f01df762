"""Embeddings and labels to measures, with their statistics."""
