"""Pages for people: one HTML file each, which needs no server and no network."""
