"""What every face of the service shares: archives, scenes, additions, workers."""
