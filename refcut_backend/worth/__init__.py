"""What references are worth: measured on annotated tasks of the project, in the background."""
