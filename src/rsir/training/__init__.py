"""Train a method on a labelled set; the result is the folder of a run."""
