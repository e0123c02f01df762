"""What a user names, to files, STAC items and objects."""
