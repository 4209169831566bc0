"""The progress of a flush for a person, computed from its events; also in a notebook."""
