"""Reconstruction: pruned networks refitted in closed form to what the dense network computes, without any training."""
