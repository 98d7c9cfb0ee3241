"""What may each role of PostgreSQL do, and whose rows does it reach?"""
