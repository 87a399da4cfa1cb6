"""Words for messages: counts, suggestions, commands to type, text of others made safe for a terminal."""
