"""Policy and files: study file, data, budget, search, retraining, front, report, command line."""
