"""Speed as a ratio to the broker's own floor, measured in one run."""
