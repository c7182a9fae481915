"""The rim: gRPC and HTTP on one side, ``predict`` and plain objects on the other. Nothing further in knows a protocol."""
