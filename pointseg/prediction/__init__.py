"""Classes for the points of files, by a trained model; from Python also for arrays.

``predict`` takes files one after the other: a bad one costs itself alone, what is finished is kept, and a cloud that
does not fit into memory gets the same classes through the disk. ``in_memory`` keeps a model for a program.
"""
