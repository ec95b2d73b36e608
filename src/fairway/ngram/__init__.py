"""N-gram models: training them, and bundling them with all that they need."""
