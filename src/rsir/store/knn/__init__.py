"""Find the nearest neighbours of a vector in memory, exactly or approximately."""
