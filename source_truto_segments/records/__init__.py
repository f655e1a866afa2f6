"""Rows: their columns, their values, and their changes since the last sync."""
