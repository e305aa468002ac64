"""The search as an Optuna study: storages, workers, samplers, scores, retraining."""
