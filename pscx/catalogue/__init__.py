"""What components there are, and which papers they cite."""
