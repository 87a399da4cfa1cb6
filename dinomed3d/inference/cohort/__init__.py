"""A run over many cases: options, events, the run and its outcome; rooms of its outputs, worker and engines."""
