"""Truto's API: requests, limits, pages, and what each failure means."""
