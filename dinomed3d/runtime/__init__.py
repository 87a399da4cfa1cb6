"""What all packages share: errors, messages, hardware, files, and the frame of a command."""
