"""Tables, figures and one HTML page from recorded numbers, without torch or compress."""
