"""Everything that has Label Studio's form: its requests, label configs, regions and masks, and calls of its API."""
