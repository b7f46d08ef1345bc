"""What Lockstep is about, as pure values and functions: the standard library and `packaging` alone."""
