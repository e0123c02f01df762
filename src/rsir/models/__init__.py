"""Trained models: saved and loaded, encoding, adapted to a gallery, explained."""
