"""Flowferry: hsl."""
