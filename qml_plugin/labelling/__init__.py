"""Labels by hand: what a person is shown of a pattern, and the answers of a session."""
