"""Evidence for scorers: structures of one cost, scored and then really retrained."""
