"""What is said: every message, subject, name and error that crosses a process border. Pure data, msgspec only."""
