"""The worker process: holds the model, fetches images, answers clicks."""
