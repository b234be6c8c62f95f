"""Where and when recordings were made, and which species can be there.

``positions`` reads coordinates from recordings, ``sites`` says where each recorder stood, ``clock``
when each recording began and how high the sun was, and ``species_range`` how probable a species is
at a place and in a season.
"""
