"""Experiments that end in a table, a CSV, a JSON object and a picture (`flowferry bench`)."""
