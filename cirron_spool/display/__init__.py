"""The progress and the results of a flush for a person, wherever they are shown."""
