"""What the operating system gives a process: child processes that end with it, calls with a time limit."""
