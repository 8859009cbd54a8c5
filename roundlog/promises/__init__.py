"""What the settings of a stream promise, and what a process knows of settings that were changed."""
