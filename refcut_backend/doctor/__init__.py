"""`refcut doctor`: looks at everything a click needs, and says what to do about what is wrong."""
