"""What drives units: the only place of BEGIN and COMMIT, of deadlines, retries and the errors of drivers."""
