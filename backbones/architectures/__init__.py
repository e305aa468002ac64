"""The networks that `backbones.registry` builds by name, a file for each family."""
