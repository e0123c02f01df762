"""Find the files, STAC items and objects that a user names."""
