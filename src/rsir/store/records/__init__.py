"""Records, and summaries of many."""
