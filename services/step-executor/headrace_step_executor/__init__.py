"""The step-executor service."""
