"""Models of sound sources, rooms and microphones behind the built-in scenes (numpy and scipy)."""
