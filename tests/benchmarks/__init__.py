"""How much of ONNX Runtime's own speed is left once it serves: docs/benchmarks.md. Run by ``python -m tests.benchmarks``.

- ``__main__.py``  what is compared, in which order, and what becomes of the figures
- ``models.py``    the two networks, as sealed bundles
- ``raw.py``       ONNX Runtime alone, in a process of its own
- ``load.py``      the callers of an appliance, in a process of their own
- ``rounds.py``    what both of them say: how one round went
"""
