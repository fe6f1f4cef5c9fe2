"""Model providers: one protocol, one adapter a wire, and two that need no network."""
