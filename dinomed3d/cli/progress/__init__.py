"""What verbs show on stderr while they run, and the time that is left."""
