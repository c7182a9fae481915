"""What a bundle, a grant and an enrolment request are: bytes, signatures, encryption. ``docs/bundle-format.md`` in code.

Nothing here reads a file, a clock or a configuration, and nothing here knows what a model means. Start with
``opening.py``, the order of trust.
"""
