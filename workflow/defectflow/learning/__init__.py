"""Teach a bundle by its mistakes: false alarms and missed defects that people report; any of it can be taken back."""
