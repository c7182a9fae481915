"""What a model means: how an image becomes its input, and how its output becomes a decision.

Pure numpy and Pillow, shared by the factory (``export``) and the appliance, so that preprocessing and calibration cannot
drift apart between the training desk and the clinic.
"""
