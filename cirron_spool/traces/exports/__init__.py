"""A trace in the formats of other tools, a piece at a time."""
