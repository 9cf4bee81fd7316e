"""Shop scheduling: job, flow, open and flexible job shops and general scheduling models."""
