"""Other servers, each a script of its own for the Python that has it: ``serve_NAME.py FOLDER PORT THREADS``.

They know nothing of the product. A folder has a folder for each network, as ``Made.save`` writes it.
"""
