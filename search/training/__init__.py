"""One engine for every training, and what is built on it: flows, slimming, masks."""
