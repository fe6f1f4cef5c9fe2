"""The session-store service."""
