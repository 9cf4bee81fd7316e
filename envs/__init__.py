"""Environments of orl: one folder a domain. Import a domain, not this package."""
