"""Flowferry: cli."""
