"""The pictures of a report; each function takes records and returns a PNG, equal bytes for equal records."""
