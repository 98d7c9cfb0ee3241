"""What is left after processes, servers, networks and disks have failed."""
