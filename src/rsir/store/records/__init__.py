"""Records, and summaries of many records."""
