"""From a labelled set and a method to the folder of a run."""
