"""Decode one picture: from the bytes of its file to RGB pixels."""
