"""Data sets of images and labels, read from files.

Imports nothing of the package outside this folder.
"""
