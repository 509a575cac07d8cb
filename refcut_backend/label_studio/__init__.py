"""Calling Label Studio: tokens, which hosts may be asked, and the SDK's client with both in place."""
