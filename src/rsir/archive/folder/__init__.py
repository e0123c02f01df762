"""The files of an archive's folder: manifest, model, creation, failures."""
