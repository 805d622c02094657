"""What every part runs on: files, folders of weights, optional libraries, progress and quiet libraries."""
