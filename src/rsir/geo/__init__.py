"""Where an image lies on the ground."""
