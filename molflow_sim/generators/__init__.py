"""Where structures come from: generators by name, and the files they are written to."""
