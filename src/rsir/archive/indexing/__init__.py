"""From sources to committed records: read ahead, encode, add, prune."""
