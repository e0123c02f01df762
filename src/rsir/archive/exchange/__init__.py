"""Archives in and out: export, import, merge, and the file formats for them."""
