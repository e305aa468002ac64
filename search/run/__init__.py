"""A study file and its run folder: settings, preparation, stages, what a person reads."""
