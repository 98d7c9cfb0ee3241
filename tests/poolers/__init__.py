"""Behind PgBouncer: is everything as it is without it?"""
