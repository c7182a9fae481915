"""Running a graph.

``queue.py`` who waits · ``batcher.py`` what runs together · ``graph.py`` what may run · ``session.py`` the runtime.
"""
