"""What loads, downloads, saves and parses. Skip it on first reading: the method is a folder up."""
