"""From a project's annotations to a training that a worker runs. What learns is in `model/`."""
