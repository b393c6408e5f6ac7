"""The labelled generator, and the report on how well detection finds what it hides."""
