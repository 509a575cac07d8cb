"""What crosses the queue between web process and worker."""
