"""The tool-registry service."""
