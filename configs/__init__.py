"""Parts of runs, as YAML: one folder per part, one file per choice."""
