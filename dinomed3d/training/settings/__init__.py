"""What a training is told: its recipe and network, from the plan and from environment variables."""
