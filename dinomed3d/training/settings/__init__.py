"""What decides a training: its recipe and network, from the plan and from environment variables."""
