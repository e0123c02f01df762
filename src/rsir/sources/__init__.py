"""From the names that a user gives to files, STAC items and objects."""
