"""Export, import and merge archives, and the file formats for this."""
