"""Generated scenes with known classes, for the demo and the tests."""
