"""Checking cameras: do the poses and depths agree with the cloud?"""
