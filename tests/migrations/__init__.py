"""Can any old database get to head and back, with rows in it, whoever else is migrating it and whatever is killed?"""
