"""Clicks, references, masks and label configurations: pure functions on plain values, no web, no queue, no torch."""
