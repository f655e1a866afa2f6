"""Rows: their columns, their values, and what changed since the last sync."""
