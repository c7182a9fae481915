"""The vendor's offline factory: a trained torch classifier in, a proven, calibrated, signed bundle out.

Where to start reading:

- ``build.py``    the life of a model: every step from a recipe to a sealed bundle, in order
- ``recipe.py``   what an ML engineer fills in
- ``errors.py``   why the factory may refuse
- ``cli.py``      ``python -m export keygen | build | grant | inspect``

It shares the product's format (``appliance.bundle``) and meaning (``appliance.model``), and is never shipped with it.

Importing this package does nothing but the two lines below. ONNX Runtime reports home from Linux by default and
reads its switch once, when it is imported; so the switch is thrown here, before any module of ours can import it.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
