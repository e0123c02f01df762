"""The bytes of one picture to pixels."""
