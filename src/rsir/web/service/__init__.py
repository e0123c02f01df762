"""The parts that REST and page share: archives, scenes, additions, workers."""
