"""The cost of a model: counted operations and measured times."""
