"""What a model costs: counted operations and measured times."""
