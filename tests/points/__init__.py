"""What is left when something happens at any one point of a call."""
