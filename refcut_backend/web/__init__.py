"""The web process: what Label Studio calls. Never imports torch."""
