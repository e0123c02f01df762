"""The nearest neighbours of a vector, exactly or approximately."""
