"""The results of a run for people: block diagrams, and a report in one self-contained HTML page."""
