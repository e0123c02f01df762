"""Published image sets: what they hold, where to get them, whether a copy is whole."""
