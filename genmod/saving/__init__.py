"""Models as folders: written, read, and shared. Nothing is pickled or unpickled.

Models have the methods (``model.save``, ``save_pretrained``, ``push_to_hub``, ``from_pretrained``), and
``genmod.load`` reads a folder.
"""
