"""Made inputs after what people met, each with what must become of it: commands, and what they say."""
