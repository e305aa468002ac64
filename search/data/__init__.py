"""Images and labels: where they come from, how they are read, split and augmented."""
