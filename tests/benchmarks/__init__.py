"""How much of ONNX Runtime's own speed is left once it serves: docs/benchmarks.md. Run by ``python -m tests.benchmarks``.

- ``__main__.py``   the command: what is asked for, the rounds, what is written
- ``points.py``     what is compared, and what becomes of the figures
- ``rounds.py``     how one measurement went
- ``models.py``     the networks: as sealed bundles, as files, as sessions
- ``servers.py``    what is measured, each a process of its own: two appliances, and the peers in ``peers/``
- ``unaudited.py``  the appliance with an audit log that keeps no calls
- ``h2load.py``     the callers of a server; ``client_certificate.c`` lends them a certificate
- ``raw.py``        ONNX Runtime alone, in a process of its own
- ``page.py``       the figures as a page
"""
