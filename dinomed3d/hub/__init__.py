"""Models by name on the Hugging Face hub: looked up, checked, downloaded, and uploaded with their card."""
