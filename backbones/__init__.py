"""What a network is: architectures, channel graph, structure, cost, surgery. No data, no Optuna."""
