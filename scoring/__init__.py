"""What a filter or a whole network is worth, without training it."""
