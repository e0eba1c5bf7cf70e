"""What a run found, for people: block diagrams and one self-contained HTML page."""
