"""Is what the documentation says true?"""
