"""The ground floor: contracts and services shared by every room (no domain, no algorithm)."""
