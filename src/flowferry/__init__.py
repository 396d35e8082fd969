"""Flowferry: carry live flows and their state between network function instances."""
