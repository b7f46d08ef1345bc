"""What runs in the sandbox. Standard library alone, and the pip that is laid next to it: the rest of Lockstep is not
there."""
