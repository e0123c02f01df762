"""Store records with vectors, and find the nearest vectors. Imports no images, models or torch."""
