"""The built-in tools: what a step may call without registering anything."""
