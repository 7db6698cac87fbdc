"""The vision tower, run on one dense batch of temporal patches."""
