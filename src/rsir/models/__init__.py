"""Trained models: save, load, encode, adapt to a gallery, explain."""
