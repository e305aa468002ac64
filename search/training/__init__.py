"""How networks are trained: one engine, and what is built on it: flows of pruning and training, slimming, masks."""
