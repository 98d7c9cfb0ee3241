"""Does the wheel work from an empty environment and an unrelated directory?"""
