"""Flowferry: bench."""
