"""The papers' tables as data, the runs that answer them, and both side by side."""
