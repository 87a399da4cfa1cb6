"""What `doctor` looks at on a machine, a file per part of it; each finding says what to do next."""
