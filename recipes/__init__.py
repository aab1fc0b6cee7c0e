"""Finished runs, as YAML; each begins with the command that starts it."""
