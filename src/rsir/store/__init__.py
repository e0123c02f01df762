"""Records and vectors, and the search for the nearest. Never images, models or torch."""
