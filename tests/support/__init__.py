"""What the tests stand on: database servers, template databases."""
