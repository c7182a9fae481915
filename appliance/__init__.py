"""An on-premise inference appliance: it opens signed, encrypted bundles in memory and answers on the record.

Where to start reading:

- ``predict.py``   the life of a request
- ``load.py``      the life of a model
- ``wiring.py``    how the pieces are put together; the only file that names every concrete class
- ``errors.py``    everything that can go wrong, drawn as a tree
- ``docs/``        the formats (bundle, audit), how to operate it, and why it is as it is

Importing this package does nothing but the two lines below. ONNX Runtime reports home from Linux by default and
reads its switch once, when it is imported; so the switch is thrown here, before any module of ours can import it.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
