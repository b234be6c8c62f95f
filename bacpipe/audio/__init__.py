"""Recordings on disk -> windows of samples.

``files`` finds recordings and reads their headers, ``stream`` decodes them in blocks of
bounded size, ``windows`` cuts the blocks into the windows that models take.  Nothing here
knows of models, settings or tensors.
"""
